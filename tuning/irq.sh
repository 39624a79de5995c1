#!/usr/bin/env bash
# Moves a network device's interrupts to processors that don't run fanal's cores, one after the other, so that packet processing
# and fan-out don't take turns on one processor. Without --apply it only prints what it would do.
#
#   tuning/irq.sh DEVICE PROCESSORS [--apply]        e.g.  tuning/irq.sh eth0 0,1 --apply
#
# irqbalance moves them back: stop it first (systemctl disable --now irqbalance).
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: tuning/irq.sh DEVICE PROCESSORS [--apply], e.g. tuning/irq.sh eth0 0,1 --apply" >&2
    exit 2
fi
device=$1
IFS=, read -ra processors <<<"$2"
apply=${3:-}

if [ ! -d "/sys/class/net/$device" ]; then
    echo "error: $device: there is no such device: see ls /sys/class/net" >&2
    exit 1
fi
for processor in "${processors[@]}"; do
    if [ ! -d "/sys/devices/system/cpu/cpu$processor" ]; then
        echo "error: processor $processor: there is none with this number: see ls -d /sys/devices/system/cpu/cpu*" >&2
        exit 1
    fi
done

# The device's own list when it has one (MSI), else the lines of /proc/interrupts that name it.
if [ -d "/sys/class/net/$device/device/msi_irqs" ]; then
    mapfile -t interrupts < <(ls "/sys/class/net/$device/device/msi_irqs")
else
    mapfile -t interrupts < <(awk -v device="$device" '$0 ~ device { sub(":", "", $1); print $1 }' /proc/interrupts)
fi
if [ ${#interrupts[@]} -eq 0 ]; then
    echo "error: $device: it has no interrupts of its own (a virtual device?): nothing to move" >&2
    exit 1
fi

next=0
for interrupt in "${interrupts[@]}"; do
    processor=${processors[next % ${#processors[@]}]}
    next=$((next + 1))
    if [ "$apply" = --apply ]; then
        echo "$processor" >"/proc/irq/$interrupt/smp_affinity_list"
        echo "interrupt $interrupt -> processor $processor"
    else
        echo "would move interrupt $interrupt to processor $processor"
    fi
done
[ "$apply" = --apply ] || echo "nothing was changed: add --apply"
