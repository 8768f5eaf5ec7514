"""`ask.py URL…`: python-requests, as pip carries it; proxy and trust from the environment."""

import sys

from pip._vendor import requests

failed = 0
for url in sys.argv[1:]:
    try:
        answer = requests.get(url, timeout=20)
        sys.stdout.write(answer.text)
        failed |= answer.status_code != 200
    except requests.RequestException as error:
        print(error, file=sys.stderr)
        failed = 1
sys.exit(failed)
