#!/bin/sh
# Sends one message, and again until the answer is definite: send.sh URL MESSAGE_ID FILE
# Exit status 0: accepted, now or before. 1: refused as it is; sending it again will not help. 2: nothing was sent.
url=$1 id=$2 file=$3
LC_ALL=C
case $id in
    '' | *[!!-~]*) echo "a message id is 1 to 255 visible ASCII characters" >&2; exit 2 ;;
esac
[ "$#" -eq 3 ] && [ -f "$file" ] && [ -r "$file" ] || { echo "not a file that can be read: $file" >&2; exit 2; }
pause=1
while :; do
    # -T and not --data-binary @…, which sends an empty message when the file is gone.
    status=$(curl --silent --show-error --output /dev/null --write-out '%{http_code}' --max-time 60 --request POST \
        --header "Message-Id: $id" --header 'Content-Type: text/plain; charset=utf-8' --header 'Expect:' \
        --globoff --upload-file "$file" "$url")
    case $?:$status in
        26:*) echo "$id: $file cannot be read any more" >&2; exit 2 ;;
        2:* | 3:* | 127:*) echo "$id: curl cannot do this" >&2; exit 2 ;;
        0:202) echo "$id: accepted"; exit 0 ;;
        0:200 | 0:304) echo "$id: accepted before"; exit 0 ;;
        0:408 | 0:429 | 0:5??) echo "$id: $status, again in $pause s" >&2 ;;
        0:*) echo "$id: refused with $status" >&2; exit 1 ;;
        *) echo "$id: no answer, again in $pause s" >&2 ;;
    esac
    sleep "$pause"
    pause=$((pause < 32 ? pause * 2 : 60))
done
