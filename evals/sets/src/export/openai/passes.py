def passes(rule, answer):
    kind, value = rule["type"], rule["value"]
    if kind == "equals":
        return answer == value
    if kind == "contains":
        return value in answer
    if kind == "not_contains":
        return value not in answer
    if kind == "regex":
        return re.search(value, answer) is not None
    raise ValueError(f"unknown rule: {kind}")
