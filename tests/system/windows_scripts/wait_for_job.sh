#!/bin/sh
# A loop as batch files for the Windows tool have it: create, add, resume, ask for the state until it is settled.
# Usage: wait_for_job.sh NAME URL PATH
set -eu
job=$(bitsadmin /RawReturn /Create /Download "$1")
bitsadmin /AddFile "$job" "$2" "$3" | grep -q 'Added .* -> .* to job'
bitsadmin /SetPriority "$job" FOREGROUND >/dev/null
bitsadmin /Resume "$job" >/dev/null
tries=0
while [ "$tries" -lt 300 ]; do
    state=$(bitsadmin /RawReturn /GetState "$job")
    case $state in
        TRANSFERRED)
            done=$(bitsadmin /rawreturn /getbytestransferred "$job")
            total=$(bitsadmin /rawreturn /getbytestotal "$job")
            [ "$done" = "$total" ]
            bitsadmin /Complete "$job" >/dev/null
            echo "$state $done of $total"
            exit 0 ;;
        ERROR | TRANSIENT_ERROR)
            bitsadmin /GetError "$job" | sed -n 's/^ERROR CODE: *\(0x[0-9a-f]*\) - .*/failed with \1/p'
            bitsadmin /Cancel "$job" >/dev/null
            exit 1 ;;
        QUEUED | CONNECTING | TRANSFERRING) ;;
        *)
            echo "what is $state?"
            exit 2 ;;
    esac
    tries=$((tries + 1))
    sleep 0.2
done
exit 3
