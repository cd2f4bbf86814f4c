"""Writes generated values, one JSON object a line: {"kind", "of", "bare", "labelled", "value"}.

`kind` is that of a redaction, or `ordinary` for a value that must stay; `of` is its country or form. `bare` and `labelled` are a
sentence with the value, without and with a word that names it. The same version of Faker writes the same lines.
"""

import base64
import json
import random
import string
from pathlib import Path

from faker import Faker

COUNT = 100
LOCALES = {
    "US": "en_US", "GB": "en_GB", "DE": "de_DE", "FR": "fr_FR", "ES": "es_ES",
    "IT": "it_IT", "NL": "nl_NL", "PL": "pl_PL", "IN": "en_IN", "BR": "pt_BR",
}
WORDS = {
    "PHONE": "phone number", "EMAIL": "e-mail", "CARD": "card", "IBAN": "account", "IP": "address", "SECRET": "API key",
    "URL_CREDENTIALS": "database",
}
draw = random.Random(20261130)
fakers = {}
for place, (country, locale) in enumerate(LOCALES.items()):
    fakers[country] = Faker(locale)
    fakers[country].seed_instance(1000 + place)


def write(kind, of, value, label=None, shown=None):
    label, shown = label or WORDS.get(kind, "reference"), shown or value
    bare = f"Thanks, {shown} is what I have here."
    print(json.dumps({"kind": kind, "of": of, "bare": bare, "labelled": f"My {label} is {shown}, thanks.", "value": value}))


def digits(count):
    return "".join(draw.choice(string.digits) for _ in range(count))


def base62(count):
    return "".join(draw.choice(string.ascii_letters + string.digits) for _ in range(count))


def weighted(number, weights, modulus):
    return sum(int(digit) * weight for digit, weight in zip(number, weights)) % modulus


def nino():
    first, second = draw.choice("ABCEGHJKLMNOPRSTWXYZ"), draw.choice("ABCEGHJKLMNPRSTWXYZ")
    if first + second in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ"):
        return nino()
    number = first + second + digits(6) + draw.choice("ABCD")
    return draw.choice([number, f"{number[:2]} {number[2:4]} {number[4:6]} {number[6:8]} {number[8]}"])


def aadhaar():
    """Twelve digits with Verhoeff's check digit, by the tables of its definition."""
    product = [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 0, 6, 7, 8, 9, 5], [2, 3, 4, 0, 1, 7, 8, 9, 5, 6],
               [3, 4, 0, 1, 2, 8, 9, 5, 6, 7], [4, 0, 1, 2, 3, 9, 5, 6, 7, 8], [5, 9, 8, 7, 6, 0, 4, 3, 2, 1],
               [6, 5, 9, 8, 7, 1, 0, 4, 3, 2], [7, 6, 5, 9, 8, 2, 1, 0, 4, 3], [8, 7, 6, 5, 9, 3, 2, 1, 0, 4],
               [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]]
    permuted = [list(range(10)), [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]]
    for place in range(2, 8):
        permuted.append([permuted[place - 1][digit] for digit in permuted[1]])
    body = draw.choice("23456789") + digits(10)
    for check in range(10):
        number, total = body + str(check), 0
        for place, digit in enumerate(reversed(number)):
            total = product[total][permuted[place % 8][int(digit)]]
        if total == 0:
            return draw.choice([number, f"{number[:4]} {number[4:8]} {number[8:]}"])


def nhs():
    while True:
        body = digits(9)
        check = 11 - weighted(body, range(10, 1, -1), 11)
        if check != 10 and len(set(body)) > 1:
            number = body + str(check % 11)
            return f"{number[:3]} {number[3:6]} {number[6:]}"


def steuer_id():
    """Eleven digits, ISO 7064 mod 11, 10; one digit occurs twice, as in those that are issued."""
    first = draw.sample(string.digits, 9)
    body = first + [draw.choice(first)]
    draw.shuffle(body)
    if body[0] == "0":
        return steuer_id()
    product = 10
    for digit in body:
        total = (int(digit) + product) % 10 or 10
        product = total * 2 % 11
    return "".join(body) + str((11 - product) % 10)


def pan():
    upper = string.ascii_uppercase
    return "".join(draw.choice(upper) for _ in range(3)) + draw.choice("PCHFATBLJG") + draw.choice(upper) + digits(4) + draw.choice(upper)


def secret():
    letters = string.ascii_letters + string.digits
    text = lambda count, of=letters: "".join(draw.choice(of) for _ in range(count))
    forms = [
        ("prefixed key", lambda: draw.choice(["ghp_", "hf_", "gsk_", "sk-proj-"]) + text(36)),
        ("AWS key", lambda: "AKIA" + text(16, string.ascii_uppercase + string.digits)),
        ("random, 32 letters and digits", lambda: text(32)),
        ("random, 32 letters", lambda: text(32, string.ascii_letters)),
        ("random, 24 small letters", lambda: text(24, string.ascii_lowercase)),
        ("base64 of 24 bytes", lambda: base64.b64encode(draw.randbytes(24)).decode()),
        ("hexadecimal, 32 digits", lambda: text(32, "0123456789abcdef")),
    ]
    for of, make in forms:
        for _ in range(COUNT):
            write("SECRET", of, make())


NATIONAL = {
    "US": [("SSN", lambda f: f.ssn())],
    "GB": [("NINO", lambda f: nino()), ("NHS number", lambda f: nhs())],
    "DE": [("Steuer-ID", lambda f: steuer_id())],
    "FR": [("NIR", lambda f: f.ssn())],
    "ES": [("DNI", lambda f: f.nif()), ("NIE", lambda f: f.nie())],
    "IT": [("codice fiscale", lambda f: f.ssn())],
    "NL": [("BSN", lambda f: f.ssn())],
    "PL": [("PESEL", lambda f: f.pesel())],
    "IN": [("Aadhaar", lambda f: aadhaar()), ("PAN", lambda f: pan())],
    "BR": [("CPF", lambda f: f.cpf())],
}


def personal(country, fake):
    for _ in range(COUNT):
        write("EMAIL", "any", fake.email())
        write("PHONE", country, fake.phone_number())
        write("IP", "IPv4", fake.ipv4_public())
        write("IP", "IPv6", fake.ipv6())
        url = f"https://{fake.user_name()}:{fake.password(special_chars=False)}@{fake.domain_name()}"
        write("URL_CREDENTIALS", "any", url, shown=f"{url}/x")
        number = fake.credit_card_number(draw.choice(["visa16", "mastercard", "amex", "discover", "diners"]))
        write("CARD", "without separators", number)
        if len(number) == 16:
            grouped = draw.choice(" -").join(number[at : at + 4] for at in range(0, 16, 4))
            write("CARD", "in groups", grouped)
        write("CARD", "in an identifier", number, "token", f"card_{number}")
        if country not in ("US", "IN", "BR"):
            iban = fake.iban()
            write("IBAN", "without spaces", iban)
            write("IBAN", "in groups", " ".join(iban[at : at + 4] for at in range(0, len(iban), 4)))
        for name, make in NATIONAL[country]:
            write("NATIONAL_ID", f"{country} {name}", make(fake), name)


def ordinary(country, fake):
    of = lambda form, value: write("ordinary", form, value, "order")
    for _ in range(COUNT):
        of("prose", fake.text(max_nb_chars=160).replace("\n", " "))
        of("dates and times", fake.iso8601() + " or " + fake.date(draw.choice(["%d/%m/%Y", "%d.%m.%Y", "%Y-%m-%d"])))
        of("amounts", f"{draw.randint(1, 10**7) / 100:,.2f} {fake.currency_code()}")
        of("UUIDs", fake.uuid4())
        of("ids of model providers", draw.choice(["call_", "toolu_", "chatcmpl-", "resp_"]) + base62(24))
        of("hashes", draw.choice([fake.md5, fake.sha1, fake.sha256])())
        of("numbers of 6 to 10 digits", digits(draw.randint(6, 10)))
        of("numbers of 11 digits", digits(11))
        of("numbers of 12 to 19 digits", digits(draw.randint(12, 19)))
        of("identifiers", f"{draw.choice(['ord', 'run', 'W', 'tkt'])}_{fake.bothify('??##-####-??##').upper()}")
        of("barcodes and ISBNs", draw.choice([fake.ean13, fake.isbn13, fake.isbn10])())
        of("versions", f"v{fake.numerify('%.##.##')} of {fake.numerify('20##.%.#')}")
        of("file paths", fake.file_path(depth=3))
        of("URLs", fake.uri())
        of("user agents", fake.user_agent())
        of("postal addresses", fake.address().replace("\n", ", "))
        of("milliseconds since the epoch", str(draw.randint(1_600_000_000_000, 1_800_000_000_000)))


def presidio():
    """The values of presidio.tsv: those that Presidio finds, and those that it must not."""
    for line in Path(__file__).with_name("presidio.tsv").read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            continue
        kind, of, label, value = line.split("\t")
        if kind == "invalid":
            write("ordinary", "invalid values of Presidio", value, "order")
        else:
            write(kind, f"Presidio: {of}", value, label)


for country, fake in fakers.items():
    personal(country, fake)
    ordinary(country, fake)
secret()
presidio()
