# Shared by the tests in this folder, which source it. Each of them sets `scratch` before its first check, and may redefine
# `explain`, which prints what helps after a failure.
# shellcheck shell=bash disable=SC2154

cache=${BELLWETHER_CACHE:-$HOME/.cache/bellwether}
jars=$cache/kafka/$(sha256sum "$(dirname "${BASH_SOURCE[0]}")/../../tests/kafka/pom.xml" | cut -c1-16)
wait_s=180 # for anything; a busy machine takes its time
passed=0

say() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; }

# Prints the comment at the head of the script.
usage() { sed -n '2,/^set /p' "$0" | sed -n 's/^# \{0,1\}//p' >&2; exit 2; }

# Ends the test, because this machine lacks something. In CI that is a failure.
missing() {
  say "skipped: $*"
  echo '0 passed, 0 failed, 1 skipped'
  [ -z "${CI:-}" ]
  exit
}

explain() { :; }

# Repeats a command until it succeeds or time is over.
check() { # NAME COMMAND…
  local name=$1 end=$((SECONDS + wait_s))
  shift
  until "$@" >"$scratch/check.out" 2>&1; do
    if [ $SECONDS -ge $end ]; then
      say "FAILED: $name"
      cat "$scratch/check.out" >&2
      explain >&2 || true
      echo "$passed passed, 1 failed, 0 skipped"
      exit 1
    fi
    sleep 0.5
  done
  passed=$((passed + 1))
  say "passed: $name"
}

finish() { echo "$passed passed, 0 failed, 0 skipped"; }

kafka_tool() { java -Xmx256m -cp "$jars/*" "$@"; }

# Makes a topic with the client that `scripts/setup python` installs.
make_topic() { # BROKER TOPIC PARTITIONS
  "$cache/venv/bin/python" - "$@" <<'PYTHON'
import sys
from confluent_kafka.admin import AdminClient, NewTopic
broker, topic, partitions = sys.argv[1:]
client = AdminClient({"bootstrap.servers": broker})
client.create_topics([NewTopic(topic, int(partitions), 1)], operation_timeout=20)[topic].result()
PYTHON
}

has_client() { [ -x "$cache/venv/bin/python" ] || missing "no Kafka client; \`scripts/setup python\` installs one"; }

# Ends the test without the broker that `scripts/broker with` starts.
broker() {
  case ${BELLWETHER_TEST_KAFKA:-mock} in
    mock) missing "no broker; run it by \`scripts/broker with\`" ;;
  esac
  has_client
}

# Prints four hours of one task, 2880 runs, of which the canary fails a third.
canary() {
  python3 - <<'PYTHON'
import json, time
now = time.time() - 60
stamp = lambda at: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
for minute in range(240):
    for n in range(12):
        canary = n >= 8
        index = minute * 12 + n
        failed = index % 3 == 0 if canary else index % 12 == 0
        start = now - (240 - minute) * 60 + n
        print(json.dumps({"spec": "run-event/1.0", "run_id": f"run-{index}", "source": "shop", "data": {
            "task": "checkout", "release": {"id": "v2" if canary else "v1"}, "rollout": {"stage": "canary" if canary else "full"},
            "started_at": stamp(start), "ended_at": stamp(start + 2 + n % 5),
            "outcome": {"status": "failure" if failed else "success"}, "cost": {"amount": "0.01", "currency": "USD"},
            **({"escalation": {"reason_code": "unsure"}} if failed else {}), "validation": {"valid": not failed}}}))
PYTHON
}

# Prints runs with these numbers, all of which have just ended.
runs() { # FROM TO
  local now
  now=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  seq -f '{"spec":"run-event/1.0","run_id":"run-%.0f","source":"test","data":{"task":"t","release":{"id":"r"},"started_at":"'"$now"'","ended_at":"'"$now"'","outcome":{"status":"success"}}}' "$1" "$2"
}
