class Rules(evals.Eval):
    def __init__(self, completion_fns, samples_jsonl, *args, **kwargs):
        super().__init__(completion_fns, *args, samples_jsonl=samples_jsonl, **kwargs)

    def eval_sample(self, sample, *_):
        answer = self.completion_fn(prompt=sample["input"], temperature=0.0).get_completions()[0]
        correct = all(passes(rule, answer) for rule in sample["rules"])
        evals.record.record_match(correct, expected=sample["rules"], picked=answer, sampled=answer)

    def run(self, recorder):
        self.eval_all_samples(recorder, self.get_samples())
        events = recorder.get_events("match")
        return {"accuracy": evals.metrics.get_accuracy(events)}
