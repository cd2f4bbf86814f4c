def grade(sample, item):
    return float(all(passes(rule, sample["output_text"]) for rule in item["rules"]))
