#!/usr/bin/env bash
# Swaps a face with nothing but curl and jq: upload, submit, progress over server-sent events, result.
#
#   examples/watch.sh samples/eileen_collins.jpg samples/grace_hopper.jpg swapped.jpg
set -euo pipefail
source=$1 target=$2 output=$3
base=${FFJOBS_SERVER:-http://127.0.0.1:8000}
call() { curl -sS --fail-with-body ${FFJOBS_TOKEN:+-H "authorization: Bearer $FFJOBS_TOKEN"} "$@"; }

uploads=$(call -F source=@"$source" -F target=@"$target" "$base/api/v1/uploads")
# The key makes this submission one job, however often it is sent.
job=$(jq '{source_images: [.uploads[0].uri], target_image: .uploads[1].uri}' <<<"$uploads" |
  call "$base/api/v1/jobs" -H 'content-type: application/json' -H "idempotency-key: $RANDOM$RANDOM$RANDOM" -d @- | jq -r .job_id)

# A stream that breaks is resumed with `Last-Event-ID: $id`; it ends by itself with the job.
call -N "$base/api/v1/jobs/$job/events" -H 'accept: text/event-stream' | while IFS= read -r line; do
  case $line in
    'id: '*) id=${line#id: } ;;
    'event: '*) event=${line#event: } ;;
    'data: '*) [ "$event" != progress ] || jq -r --arg id "$id" '"\($id)  \(.progress.percent // 0 | floor) %  \(.progress.step)"' <<<"${line#data: }" ;;
  esac
done

state=$(call "$base/api/v1/jobs/$job")
if [ "$(jq -r .status <<<"$state")" != succeeded ]; then
  jq -r '"\(.status): \(.error.reason // "") \(.error.message // "")"' <<<"$state" >&2
  exit 1
fi
call -L -o "$output" "$base/api/v1/jobs/$job/result"
echo "$output"
