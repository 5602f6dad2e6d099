#!/usr/bin/busybox sh
# Process 1 as the image has it: takes the init script of this boot from the host and goes on as that, so that a change
# of the init script or of the job needs no new image. $croft_job, from the kernel's command line, is its size.
B=/usr/bin/busybox
$B mount -t devtmpfs -o nosuid devtmpfs /dev
$B mount -t tmpfs -o mode=755,nosuid,nodev tmpfs /run
$B mkdir /run/croft
until [ -c /dev/vport0p1 ]; do $B usleep 2000; done
# A port that the host has not opened yet reads as empty.
until [ -s /run/croft/init ]; do
    $B dd if=/dev/vport0p1 of=/run/croft/init bs="$croft_job" count=1 iflag=fullblock 2> /dev/null
done
. /run/croft/init
