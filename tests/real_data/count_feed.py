#!/usr/bin/env python3
"""Counts what importing a Google Merchant TSV (plain or gzipped) must give.

    count_feed.py FEED.tsv[.gz] ...

Prints a JSON object for each file: rows, created, updated, unchanged, failed, and failed rows by reason. Shares no code with Stoa: rows are read by
Python's csv module, prices by a grammar written down anew. The rules:

- A row fails only without an id, a title or a readable price.
- A price is readable if it has one meaning: an amount with at most the currency's decimals and a currency, in either order; a comma only where it must
  separate thousands.
- An id that came before is an update; if nothing differs, unchanged.
- A sale price is the price if it is readable, in the price's currency and lower; otherwise it is kept as a fact about the product.
"""

import collections
import csv
import gzip
import io
import json
import re
import sys
from decimal import Decimal

# ISO 4217 currencies whose amounts do not have two decimals.
DECIMALS = {
    **dict.fromkeys("BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split(), 0),
    **dict.fromkeys("BHD IQD JOD KWD LYD OMR TND".split(), 3),
    **dict.fromkeys("CLF UYW".split(), 4),
}
# Every other currency in use.
TWO_DECIMALS = set(
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF CHE CHF CHW CNY COP COU CRC CUC CUP CVE "
    "CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HRK HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR "
    "LRD LSL MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR "
    "SDG SEK SGD SHP SLE SLL SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG ZWL".split()
)
HIGHEST_MINOR = 1_000_000_000_000
PLAIN = r"-?[0-9]+(?:\.[0-9]+)?"
WESTERN = r"[0-9]{1,3}(?:,[0-9]{3})+"
INDIAN = r"[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}"
GROUPED = rf"(?:(?:{WESTERN}|{INDIAN})\.[0-9]+|[0-9]{{1,3}}(?:,[0-9]{{3}}){{2,}}|{INDIAN})"
AMOUNT = rf"(?P<amount>{PLAIN}|{GROUPED})"
CODE = r"(?P<code>[A-Za-z]{3})"
PRICE = [re.compile(rf"{AMOUNT}\s*{CODE}"), re.compile(rf"{CODE}\s*{AMOUNT}")]


def price(text):
    """(minor units, currency), or the reason why there is none."""
    text = text.strip()
    if not text:
        return "required /variants/0/price"
    match = next(filter(None, (grammar.fullmatch(text) for grammar in PRICE)), None)
    if not match:
        return "invalid /variants/0/price"
    code = match["code"].upper()
    if code not in DECIMALS and code not in TWO_DECIMALS:
        return "invalid /variants/0/price"
    minor = Decimal(match["amount"].replace(",", "")).scaleb(DECIMALS.get(code, 2))
    if minor != minor.to_integral_value():
        return "invalid /variants/0/price"
    if not 0 <= minor <= HIGHEST_MINOR:
        return "out_of_range /variants/0/price/amount"
    return int(minor), code


def rows(path):
    raw = open(path, "rb").read()
    if raw.startswith(b"\x1f\x8b"):
        raw = gzip.decompress(raw)
    text = raw.decode("utf-8-sig", errors="replace")
    csv.field_size_limit(1 << 24)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True)
    header = [name.strip().lower().removeprefix("g:").replace(" ", "_") for name in next(reader)]
    for fields in reader:
        if any(field.strip() for field in fields):
            yield {name: field.strip() for name, field in reversed(list(zip(header, fields))) if field.strip()}


def count(path):
    counts = dict.fromkeys(("rows", "created", "updated", "unchanged", "failed"), 0)
    reasons = collections.Counter()
    known = {}
    for row in rows(path):
        counts["rows"] += 1
        listed = price(row.get("price", ""))
        faults = [f"required {pointer}" for name, pointer in (("id", "/externalId"), ("title", "/title")) if name not in row]
        if isinstance(listed, str):
            # The server tells structure before rules: a price that is no price is all that it says.
            faults = [listed] if not listed.startswith("out_of_range") else [*faults, listed]
        if faults:
            counts["failed"] += 1
            reasons.update(faults)
            continue
        content = {name: text for name, text in row.items() if name not in ("id", "price", "sale_price", "sale_price_effective_date")}
        sale = price(row.get("sale_price", ""))
        if isinstance(sale, tuple) and sale[1] == listed[1] and sale[0] < listed[0] and "sale_price_effective_date" not in row:
            content["price"], content["compare at"] = sale, listed
        else:
            content["price"] = listed
            if "sale_price" in row and sale != listed:
                content["sale price"] = row["sale_price"], row.get("sale_price_effective_date")
        before = known.get(row["id"])
        counts["created" if before is None else "unchanged" if before == content else "updated"] += 1
        known[row["id"]] = content
    return {**counts, "reasons": dict(sorted(reasons.items()))}


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(json.dumps(count(path), indent=2))
