#!/bin/sh
# Sends one message, and again until the answer is definite: send.sh URL MESSAGE_ID FILE
# Exit status 0: accepted, now or before. 1: refused as it is; sending it again will not help.
url=$1 id=$2 file=$3
pause=1
while :; do
    status=$(curl --silent --show-error --output /dev/null --write-out '%{http_code}' --max-time 60 \
        --header "Message-Id: $id" --header 'Content-Type: text/plain; charset=utf-8' \
        --data-binary "@$file" "$url") || status=000
    case $status in
        202) echo "$id: accepted"; exit 0 ;;
        304) echo "$id: accepted before"; exit 0 ;;
        000 | 408 | 429 | 5??) echo "$id: $status, again in $pause s" >&2 ;;
        *) echo "$id: refused with $status" >&2; exit 1 ;;
    esac
    sleep "$pause"
    pause=$((pause < 32 ? pause * 2 : 60))
done
