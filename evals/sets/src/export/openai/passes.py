def passes(rule, answer):
    kind, value = rule["type"], rule["value"]
    if kind == "equals":
        return answer == value
    if kind == "contains":
        return value in answer
    if kind == "not_contains":
        return value not in answer
    if kind == "regex":
        try:
            return re.search(value, answer) is not None
        except re.error:  # a pattern of another dialect
            return False
    raise ValueError(f"unknown rule: {kind}")
