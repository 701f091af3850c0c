#!/bin/sh
# Run nats-server on a volume that it can read, and have it read its certificate anew when the files
# change.
#
#   run-nats.sh VOLUME alone|clustered DIRECTORY-OF-THE-CERTIFICATE|"" ARGUMENTS-OF-NATS-SERVER…
#
# The process id of this shell is that of nats-server after the exec.
volume=$1
kind=$2
files=$3
shift 3

exists() {
    [ -e "$1" ]
}

# A node of a cluster takes streams that the cluster knows nothing of for orphans and deletes them; a
# node alone cannot read those of a cluster. The cluster's own log is there before any stream.
if exists "$volume"/jetstream/*/streams/*; then
    found=alone
    if exists "$volume"/jetstream/*/_js_/_meta_; then
        found=clustered
    fi
    if [ "$found" != "$kind" ]; then
        echo "nats-server is not started, and nothing is changed: it is to run $kind, and the queue" \
            "in $volume was stored by one that ran $found. Set nats.replicas back, or see \"From one" \
            "NATS node to three\" in docs/operate.md." >&2
        exit 1
    fi
fi

state() {
    cat "$files/tls.crt" "$files/tls.key" "$files/ca.crt" | sha256sum
}

# Kubernetes exchanges the files of a Secret some time after the Secret has changed; ten seconds more
# do not matter.
if [ -n "$files" ]; then
    (
        last=$(state)
        while sleep "${RELOAD_SECONDS:-10}" && kill -0 $$ 2>/dev/null; do
            now=$(state)
            if [ "$now" != "$last" ] && kill -HUP $$; then
                last=$now
            fi
        done
    ) &
fi
exec nats-server "$@"
