#!/bin/sh
# Run nats-server, and have it read its certificate anew when the files change.
#
#   run-nats.sh DIRECTORY-OF-THE-CERTIFICATE ARGUMENTS-OF-NATS-SERVER…
#
# The process id of this shell is that of nats-server after the exec. Kubernetes exchanges the files
# of a Secret some time after the Secret has changed; ten seconds more do not matter.
files=$1
shift

state() {
    cat "$files/tls.crt" "$files/tls.key" "$files/ca.crt" | sha256sum
}

(
    last=$(state)
    while sleep "${RELOAD_SECONDS:-10}" && kill -0 $$ 2>/dev/null; do
        now=$(state)
        if [ "$now" != "$last" ] && kill -HUP $$; then
            last=$now
        fi
    done
) &
exec nats-server "$@"
