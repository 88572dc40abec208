# Runs the server until the pipe on stdin closes: that happens when Songflight ends in any way,
# SIGKILL included, so no server is ever left behind. Arguments: the socket's folder, removed when
# empty; a folder to remove whole (or an empty text); then the server's command line.
sockets=$1
remove=$2
shift 2
exec 3<&0 </dev/null
"$@" 3<&- &
server=$!
{ read -r _ <&3; kill -INT "$server" 2>/dev/null; } &   # SIGINT: Postgres' fast shutdown
watcher=$!
exec 3<&-
wait "$server"
status=$?
kill "$watcher" 2>/dev/null
rmdir -- "$sockets" 2>/dev/null
if [ -n "$remove" ]; then
    rm -rf -- "$remove"
fi
exit "$status"
