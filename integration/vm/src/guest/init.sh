# The guest's init script. In front of it stand the lines of this boot (src/job.rs): the variables init, modules,
# and the functions mount_shares, flush_shares and job. Run without an argument it is process 1.
B=/usr/bin/busybox
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 TERM=dumb

# Ends the machine without a status: the host then shows the console, where this is written.
fail() {
    echo "croft-vm: $*" > /dev/console
    $B poweroff -f
}

try() {
    "$@" || fail "failed: $*"
}

mount_system() {
    M="$B mount -o nosuid,nodev,noexec"
    try $M -t proc proc /proc
    try $M -t sysfs sysfs /sys
    try $M,nsdelegate,memory_recursiveprot -t cgroup2 cgroup2 /sys/fs/cgroup
    try $M -t securityfs securityfs /sys/kernel/security
    try $M -t bpf bpf /sys/fs/bpf
    try $B mkdir -p /dev/pts /dev/shm /dev/mqueue /dev/net /run/lock
    try $B mount -t devpts -o nosuid,noexec,gid=5,mode=620,ptmxmode=666 devpts /dev/pts
    try $B mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs /dev/shm
    try $M -t mqueue mqueue /dev/mqueue
    # As on a machine whose /tmp is a plain folder: device nodes in a test's root filesystem work.
    try $B mount -t tmpfs -o mode=1777 tmpfs /tmp
}

# What udev does on a machine that has it: links, and nodes whose modules load when they are opened.
make_devices() {
    $B ln -s /proc/self/fd /dev/fd
    $B ln -s /proc/self/fd/0 /dev/stdin
    $B ln -s /proc/self/fd/1 /dev/stdout
    $B ln -s /proc/self/fd/2 /dev/stderr
    [ -c /dev/net/tun ] || $B mknod -m 666 /dev/net/tun c 10 200
    [ -c /dev/fuse ] || $B mknod -m 666 /dev/fuse c 10 229
    $B chmod 666 /dev/net/tun /dev/fuse
}

enable_controllers() {
    read -r controllers < /sys/fs/cgroup/cgroup.controllers
    for controller in $controllers; do
        echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control || fail "controller $controller"
    done
}

load_modules() {
    [ -z "$modules" ] || try /usr/sbin/modprobe -a $modules
}

# Runs the job and sends its output and its status to the host. The output goes through FIFOs, because a virtio port
# can be open only once: the job may open /dev/stdout again. The job gets the system's own shell, as busybox's would
# run its applets in place of the system's programs.
run_job() {
    try $B mkfifo -m 666 /run/croft/out /run/croft/err
    $B cat /run/croft/out > /dev/vport0p2 &
    copies=$!
    $B cat /run/croft/err > /dev/vport0p3 &
    copies="$copies $!"
    # From here on the host boots no other machine in this one's place: the job may have done something.
    echo begun > /dev/vport0p1
    $B setsid /bin/sh /run/croft/init job < /dev/null > /run/croft/out 2> /run/croft/err
    status=$?
    # Whatever the job left running may hold the FIFOs open: all other sessions are killed.
    killall5 -9
    wait $copies
    flush_shares
    echo $status > /dev/vport0p1
    # The host ends the machine now; this is for a host that does not.
    $B poweroff -f
}

# Services that take seconds here and serve a machine that is kept, or one with devices that come and go.
unwanted="apparmor ldconfig kmod-static-nodes systemd-binfmt systemd-hwdb-update systemd-journal-catalog-update
    systemd-journal-flush systemd-modules-load systemd-random-seed systemd-remount-fs systemd-sysusers
    systemd-tmpfiles-clean systemd-udev-load-credentials systemd-udev-trigger systemd-update-done
    systemd-tmpfiles-setup-dev systemd-tmpfiles-setup-dev-early modprobe@"

become_systemd() {
    $B mkdir -p /run/systemd/system
    for service in $unwanted; do
        $B ln -s /dev/null "/run/systemd/system/$service.service"
    done
    $B cat > /run/systemd/system/croft-job.service <<- EOF
	[Unit]
	Description=The job of this virtual machine
	Wants=dbus.socket
	After=basic.target dbus.socket
	[Service]
	Type=exec
	ExecStart=$B sh /run/croft/init service
	Delegate=yes
	TasksMax=infinity
	OOMPolicy=continue
	StandardOutput=tty
	StandardError=tty
	TTYPath=/dev/console
	EOF
    $B cat > /run/systemd/system/croft.target <<- EOF
	[Unit]
	Description=The system with the job
	Requires=basic.target
	Wants=croft-job.service
	After=basic.target
	AllowIsolate=yes
	EOF
    exec /usr/lib/systemd/systemd --unit=croft.target
    fail "cannot start systemd"
}

case "$1" in
job) job ;;
service) run_job ;;
*)
    mount_system
    make_devices
    $B hostname croft-vm
    $B ip link set lo up
    mount_shares
    load_modules
    [ "$init" != systemd ] || become_systemd
    enable_controllers
    run_job
    ;;
esac
