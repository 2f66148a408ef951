# Runs a server with its files laid over the system's, as the first process of mount
# and process namespaces of its own, which the caller has made: what it starts ends
# with it, and nobody else sees what is mounted here.
#
#   sh enter.sh SITE PACKAGE SHARED COMMAND...
#
# SITE and PACKAGE have folders etc, usr and var; SITE lies on top. What the server
# writes there is kept in memory. SHARED is its /mnt.
set -eu
site=$1 package=$2 shared=$3
shift 3

mount --make-rprivate /
mount -t proc proc /proc
mount --bind "$shared" /mnt
mount -t tmpfs -o mode=755 tmpfs /run
for dir in etc usr var; do
	mkdir -p "/run/layers/$dir/upper" "/run/layers/$dir/work"
	mount -t overlay -o "lowerdir=$site/$dir:$package/$dir:/$dir,upperdir=/run/layers/$dir/upper,workdir=/run/layers/$dir/work" overlay "/$dir"
done
exec "$@"
