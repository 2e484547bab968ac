#!/bin/bash
# make demo: attack a real sshd with a whole /32 of addresses, and show what pam_prefixquota does.
#
#   tests/demo.sh MODULE COMMAND PAMDIR
#
# Everything happens in network, mount and process namespaces of its own, on a tmpfs: the real
# /etc, /dev, /run and /var/lib are not touched, and when the demo ends nothing of it is left.
# It ends with status 1 if anything is not as it says.
set -euo pipefail

usage='usage: tests/demo.sh MODULE COMMAND PAMDIR (make demo calls it)'
module=$(realpath "${1:?$usage}") command=$(realpath "${2:?$usage}") pam_dir=${3:?$usage}

if [ "$(id -u)" != 0 ]; then
    echo "The demo needs root, for namespaces of its own." >&2
    exit 1
fi

# --- Outside: one empty directory, and the namespaces. ---------------------------------------

if [ -z "${DEMO_LAB:-}" ]; then
    DEMO_LAB=$(mktemp -d)
    export DEMO_LAB
    trap 'rmdir "$DEMO_LAB"' EXIT
    # The process namespace takes every process with it when it ends.
    unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private \
        "$0" "$module" "$command" "$pam_dir"
    exit
fi

# --- Inside: a machine of our own. -----------------------------------------------------------

lab=$DEMO_LAB
mount -t tmpfs -o mode=0755 demo "$lab"

# Two IPv6 /32s, all their addresses ours: 2001:db8::/32 and 3fff::/32 (documentation prefixes).
ip link set lo up
echo 1 >/proc/sys/net/ipv6/ip_nonlocal_bind
ip -6 route add local 2001:db8::/32 dev lo
ip -6 route add local 3fff::/32 dev lo

# Copies of what changes, then mounted over the real ones.
mkdir -m 0755 "$lab/bin" "$lab/dev" "$lab/run" "$lab/run/sshd" "$lab/lib" "$lab/home"
mkdir -m 0700 "$lab/lib/prefixquota"
cp -a /etc "$lab/etc"
cp -a "$pam_dir" "$lab/security"
install -m 0644 "$module" "$lab/security/pam_prefixquota.so"
install -m 0755 "$command" "$lab/bin/prefixquota"
for device in null zero full random urandom tty; do
    touch "$lab/dev/$device"
    mount --bind "/dev/$device" "$lab/dev/$device"
done
ln -s /proc/self/fd "$lab/dev/fd"

rm -f "$lab/etc/security/prefixquota.conf" "$lab/etc/nologin" # the settings are the defaults
password=$(openssl rand -hex 6)
# Two users: demo, whom the attacker guesses at, and alice, who logs in every day.
for user in demo alice; do
    echo "$user:x:60601:60601::$lab/home:/bin/sh" >>"$lab/etc/passwd"
    echo "$user:x:60601:" >>"$lab/etc/group"
    echo "$user:$(openssl passwd -6 "$password"):19000:0:99999:7:::" >>"$lab/etc/shadow"
done
# A short stack. pam_unix without its delay of 2 seconds after a wrong password, to save time.
cat >"$lab/etc/pam.d/sshd" <<'STACK'
# The stack of this demo
auth     required  pam_unix.so nodelay
account  required  pam_unix.so
session  required  pam_permit.so
STACK
mount --bind "$lab/etc" /etc
mount --bind "$lab/security" "$pam_dir"
mount --rbind "$lab/dev" /dev
mount --bind "$lab/run" /run
mount --bind "$lab/lib" /var/lib

export PATH=$lab/bin:/usr/local/sbin:/usr/sbin:/sbin:$PATH
log=$lab/auth.log
store=/var/lib/prefixquota/prefixquota.db

wait_for() { # a command to succeed, 5 seconds at most
    local try
    for try in {1..50}; do
        if "$@" 2>/dev/null; then return; fi
        sleep 0.1
    done
    echo "$* failed $try times" >&2
    return 1
}

# A syslog of our own.
: >"$log"
perl -MIO::Socket::UNIX -e '
    my $log = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => "/dev/log") or die "/dev/log: $!";
    open my $file, ">>", $ARGV[0] or die "$ARGV[0]: $!";
    $file->autoflush;
    while (defined $log->recv(my $line, 8192)) { $line =~ s/^<\d+>|[\n\0]+$//g; print $file "$line\n" }
' "$log" &
wait_for test -S /dev/log

ssh-keygen -q -t ed25519 -N '' -f "$lab/hostkey"
ssh-keygen -q -t ed25519 -N '' -f "$lab/key"
cat >"$lab/sshd.conf" <<CONF
Port 2222
ListenAddress ::1
HostKey $lab/hostkey
AuthorizedKeysFile $lab/key.pub
PidFile none
UsePAM yes
PasswordAuthentication yes
KbdInteractiveAuthentication yes
StrictModes no
PrintMotd no
PrintLastLog no
MaxStartups 200
CONF

# What a client does: guess SOURCE PASSWORD [METHOD]; prints what ssh says, or "in".
cat >"$lab/bin/guess" <<GUESS
#!/bin/sh
export PW="\$2" DISPLAY=none SSH_ASKPASS=$lab/bin/answer SSH_ASKPASS_REQUIRE=force
timeout 60 ssh -F none -b "\$1" -p 2222 -o PreferredAuthentications="\${3:-password}" \\
    -i $lab/key -o IdentitiesOnly=yes -o NumberOfPasswordPrompts=1 \\
    -o KexAlgorithms=curve25519-sha256 \\
    -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \\
    "\${LOGIN:-demo}@::1" echo in </dev/null 2>&1 | tr -d '\\r' | grep -v '^Warning: Permanently added'
GUESS
# shellcheck disable=SC2016 # for the script, not for us
printf '#!/bin/sh\nprintf "%%s\\n" "$PW"\n' >"$lab/bin/answer"
chmod +x "$lab/bin/guess" "$lab/bin/answer"

# --- The words of the demo. ------------------------------------------------------------------

bold='' plain='' red=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m' red=$'\e[31m'; fi
fail() {
    printf '%s\n' "${red}NOT AS IT SHOULD BE: $*${plain}" "The end of the log:" >&2
    tail -5 "$log" >&2
    exit 1
}
trap 'fail "a command in line $LINENO"' ERR
step() { printf '\n%s\n' "${bold}== $*${plain}"; }
say() { printf '%s\n' "$@"; }
show() {
    printf '%s\n' "${bold}\$ $*${plain}"
    "$@"
}
# attempt SOURCE PASSWORD METHOD in|refused|wrong WHO [USER]: one login, and what must come of it.
#   refused: by us, before the password was looked at. wrong: by pam_unix.
attempt() {
    local source=$1 secret=$2 method=$3 expected=$4 who=$5 said outcome denied closed
    local -x LOGIN=${6:-demo}
    denied=$(denials "$source") closed=$(closings "$source")
    said=$(guess "$source" "$secret" "$method") || true
    case $said in
        in | *$'\n'in) outcome=in ;;
        *"Permission denied"*)
            outcome=wrong
            # When the last line of this connection is in the log, ours is there too.
            wait_for more_closings "$source" "$closed"
            if [ "$(denials "$source")" -gt "$denied" ]; then outcome=refused; fi
            ;;
        *) outcome="no answer" ;;
    esac
    printf '  %-30s %-44s -> %s\n' "$source" "$who" "$outcome"
    [ "$outcome" = "$expected" ] || fail "expected \"$expected\"; ssh said: $said"
}
denials() { grep -c "denied: service=sshd source=$1 " "$log" || true; }
closings() { grep -Ec "(closed by|Disconnected from) authenticating user [a-z]+ $1 " "$log" || true; }
more_closings() { [ "$(closings "$1")" -gt "$2" ]; }
all_denials() { grep -c 'denied: service=sshd source=2001:db8:' "$log" || true; }
# Wrong passwords that reached the password check, by the log of pam_unix.
checked() { grep -c "pam_unix(sshd:auth): authentication failure.*rhost=$1" "$log" || true; }
answers() { : <>/dev/tcp/::1/2222; }
# Goes on guessing until the /32 has just been filled again, for at least 5 seconds.
hold() {
    local left
    while :; do
        left=$(prefixquota --format json check 2001:db8::bad || true) # status 1: denied
        left=${left##*\"retry_after_s\":}
        left=${left%%[,\}]*}
        if [ "$left" -ge 5 ]; then return; fi
        guess "$(addresses 1)" wrong >/dev/null || true
    done
}
# So many random addresses of 2001:db8::/32.
addresses() {
    od -An -v -tx2 -w12 -N $((12 * $1)) /dev/urandom | sed 's/^ /2001:db8:/; s/ /:/g'
}

# --- The demo. -------------------------------------------------------------------------------

step "An sshd with pam_prefixquota, all settings at their defaults"
show prefixquota enable sshd
/usr/sbin/sshd -f "$lab/sshd.conf"
wait_for answers

step "1. An attacker with one address, 3fff:0:1:2::bad"
attempt 3fff:0:1:2::bad guess1 password wrong "first wrong password"
attempt 3fff:0:1:2::bad guess2 password wrong "second wrong password"
attempt 3fff:0:1:2::bad "$password" password refused "third guess, and it is the right password"
say "His neighbours have nothing to do with it:"
attempt 3fff:0:1:2::7 "$password" password in "alice, same /64, right password" alice
say "What a denied client sees (keyboard-interactive):"
said=$(guess 3fff:0:1:2::bad "$password" keyboard-interactive || true)
printf '%s\n' "$said" | sed '/^$/d; s/^/  /'
[[ $said == *"Too many failed attempts from your network. Try again in "* ]] || fail "no message"
say "What the log says:"
grep -m1 'denied: service=sshd source=3fff:' "$log" | sed 's/^/  /'

say "The same from 3fff:0:1:3::bad, with 30 connections at once:"
seq 30 | xargs -P 30 -I{} guess 3fff:0:1:3::bad "wrong {}" >/dev/null || true
reached=$(checked 3fff:0:1:3::bad)
say "  $reached of 30 guesses reached the password check"
[ "$reached" = 2 ] || fail "expected 2"

step "2. An attacker with a whole /32: each guess from another random address of 2001:db8::/32"
say "(Through the real sshd, 20 connections at a time. A limit on one address never sees him twice.)"
began=$SECONDS
guessed=0
volley() { # so many guesses
    addresses "$1" | xargs -P 20 -I{} guess {} "wrong {}" >/dev/null || true
    guessed=$((guessed + $1))
    printf '  %4d guesses sent, %3d reached the password check, %3d denied (%d s)\n' \
        $guessed "$(checked 2001:db8:)" "$(all_denials)" $((SECONDS - began))
}
volley 150
volley 150
say "Somebody logs in from the attacked /32 while it still has room; now she is known there:"
attempt 2001:db8:cafe:1::5 "$password" password in "alice, another /64, right password" alice
volley 150
volley 150
while [ "$(all_denials)" = 0 ] && [ $guessed -lt 1000 ]; do volley 50; done
say "Now the /32 is full. Counts decay, so it gets room for one attempt every 8 seconds;"
say "the attacker goes on and takes it. Others with an address there:"
hold
attempt 2001:db8:dead:beef::1 "$password" password refused "fresh address, right password"
attempt 2001:db8:feed:2::9 "$password" password in "alice, whose provider is known, at a new /64" alice
attempt 3fff:0:7::1 "$password" password in "a neighbour in another /32"
attempt 2001:db8:dead:beef::1 "$password" publickey in "fresh address, with a key"
reached=$(checked 2001:db8:)
# While he guesses, counts decay: 626 * ln(2) / 3600 s, 0.12 guesses for each second.
most=$((627 + (SECONDS - began) * 13 / 100))
say "$reached guesses reached the password check; the quota of a /32 is 626, and counts decay meanwhile."
if [ "$reached" -lt 626 ] || [ "$reached" -gt $most ]; then fail "expected 626 to $most"; fi

step "3. Looking at it"
query="SELECT prefix, failures, quota, full FROM prefix_count WHERE full"
hold
say "${bold}\$ sqlite3 -column -header $store \\" "    \"$query\"${plain}"
full=$(sqlite3 -column -header "$store" "$query")
say "$full"
[[ $full == *2001:db8::/32* && $full == *3fff:0:1:2::bad/128* ]] || fail "prefixes are missing"
echo
hold
if show prefixquota check 2001:db8:dead:beef::1; then fail "admitted"; fi
echo
show prefixquota check 3fff:0:1:2::7
echo
show prefixquota top -n 5

step "4. Lifting it"
show prefixquota forgive 2001:db8::/32
attempt 2001:db8:dead:beef::1 "$password" password in "right password again"

step "All as it should be."
