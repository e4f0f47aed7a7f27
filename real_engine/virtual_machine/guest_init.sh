#!/bin/busybox sh
# The guest's first process. What it says on the serial line is read by guest.py.

echo "onggi: init"

/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev

# Into the kernel's log too, which stamps it with the guest's own clock. `<6>` keeps it off the console.
echo "<6>onggi: ready" >/dev/kmsg
echo "onggi: ready"

# From here on the guest is idle: it waits for a question on the serial line.
while read -r question; do
    case "$question" in
    times)
        /bin/busybox dmesg | /bin/busybox awk -F '[][ ]+' '
            /Run \/init as init process/ { init = $2 }
            /onggi: ready/ { ready = $2 }
            END { print "onggi: times init=" init " ready=" ready " end" }'
        ;;
    memory)
        /bin/busybox awk '
            /^MemTotal:/ { total = $2 }
            /^MemAvailable:/ { available = $2 }
            END { print "onggi: memory total=" total " available=" available " end" }' /proc/meminfo
        ;;
    esac
done
