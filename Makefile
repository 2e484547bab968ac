# prefixquota: build, install, test. `make help` lists the targets.

PREFIX    ?= /usr
SBINDIR   ?= $(PREFIX)/sbin
DOCDIR    ?= $(PREFIX)/share/doc/prefixquota
MANDIR    ?= $(PREFIX)/share/man
BASHDIR   ?= $(PREFIX)/share/bash-completion/completions
FISHDIR   ?= $(PREFIX)/share/fish/vendor_completions.d
# Where zsh looks: Debian has a place of its own for what packages bring.
ZSHDIR    ?= $(PREFIX)/share/zsh/$(if $(and $(filter /usr,$(PREFIX)),$(wildcard \
               /etc/debian_version)),vendor-completions,site-functions)
# Fixed places, where PAM, systemd and the module look.
CONFDIR     := /etc/security
STATEDIR    := /var/lib/prefixquota
TMPFILESDIR := /usr/lib/tmpfiles.d

# PAM's module directory: what pkg-config says, else where pam_permit.so lies. Looked up when it is
# used, after `deps` may have installed pkg-config.
ifndef PAMDIR
PAMDIR = $(or $(addsuffix /security,$(shell pkg-config --variable=libdir pam 2>/dev/null)),$(patsubst \
           %/pam_permit.so,%,$(firstword $(shell ls -d /usr/lib/*/security/pam_permit.so \
           /lib/*/security/pam_permit.so /usr/lib64/security/pam_permit.so \
           /usr/lib/security/pam_permit.so 2>/dev/null))))
endif

CARGO     ?= cargo
TARGETDIR := $(or $(CARGO_TARGET_DIR),target)$(addprefix /,$(CARGO_BUILD_TARGET))
MODULE    := $(TARGETDIR)/module/libpam_prefixquota.so
COMMAND   := $(TARGETDIR)/release/prefixquota
SOURCES   := Cargo.toml Cargo.lock build.rs $(wildcard .cargo/config.toml) $(shell find src -type f)
# Who prints manual pages and completions; a cross build names a command that runs here.
PAGEMAKER ?= $(COMMAND)
PAGESDIR  := $(TARGETDIR)/pages
DOCPAGES  := $(wildcard docs/*)
PAGES8    := $(addprefix $(PAGESDIR)/,prefixquota.8 pam_prefixquota.8)
PAGES5    := $(PAGESDIR)/prefixquota.conf.5
COMPLETIONS := $(addprefix $(PAGESDIR)/completions.,bash zsh fish)
EXAMPLES  := $(wildcard pam.d-examples/*)
DOCS      := README.md SECURITY.md CHANGELOG.md LICENSE LICENSE-MIT LICENSE-APACHE
SCRIPTS   := .ci/run $(wildcard tests/*.sh)

# What is built already needs no Rust: sudo often does not find that of the one who called it.
NEED_CARGO = @command -v $(CARGO) >/dev/null || { echo "Please install Rust 1.89 or newer \
(https://rustup.rs), or, if sudo does not find yours: sudo env PATH=\"\$$PATH\" make ..." >&2; exit 1; }

.DELETE_ON_ERROR:

.PHONY: all deps test-deps bench-deps build-packages test-packages install uninstall test miri demo bench clean help

all: $(MODULE) $(COMMAND) $(PAGES8) $(PAGES5) $(COMPLETIONS)  ## build the module, the command and its pages

# A library that is built as cdylib and rlib at once gets no link-time optimisation, so the module
# is built as cdylib alone, and without what only the command needs. `touch`: cargo leaves a file
# alone when a change does not concern it, and `make install` as root must then not start cargo.
$(MODULE): $(SOURCES)
	$(NEED_CARGO)
	$(CARGO) rustc --locked --lib --crate-type cdylib --profile module --no-default-features --features bundled
	@touch $@

$(COMMAND): $(SOURCES)
	$(NEED_CARGO)
	$(CARGO) build --locked --release --bin prefixquota
	@touch $@

$(PAGES8) $(PAGES5): $(COMMAND)
	@mkdir -p "$(@D)"
	$(PAGEMAKER) man $(@F) >$@

$(COMPLETIONS): $(PAGESDIR)/completions.%: $(COMMAND)
	@mkdir -p "$(@D)"
	$(PAGEMAKER) completions $* >$@

deps: build-packages  ## install what the build needs, if it is missing (Debian, as root)
	$(NEED_CARGO)

test-deps: deps test-packages  ## install what the tests need besides, without starting any service

build-packages:
	@tests/need.sh gcc:gcc /usr/include/stdio.h:libc6-dev pkg-config:pkg-config \
	    /usr/include/security/pam_appl.h:libpam0g-dev

test-packages: build-packages
	@tests/need.sh sshd:openssh-server ssh:openssh-client dovecot:dovecot-imapd visudo:sudo \
	    '/usr/lib*/dovecot/pop3:dovecot-pop3d' sqlite3:sqlite3 ip:iproute2 ps:procps \
	    openssl:openssl readelf:binutils perl:perl-base shellcheck:shellcheck groff:groff-base \
	    nft:nftables ipset:ipset valgrind:valgrind

# The module is put in place by renaming: a daemon that runs may have the old one mapped.
# Settings that are there are left alone; all there is to set is in the example in DOCDIR.
install: all  ## install into DESTDIR, with PREFIX (/usr) and PAMDIR
	@test -n "$(PAMDIR)" || { echo "PAM's module directory was not found; please give PAMDIR=" >&2; exit 1; }
	install -d "$(DESTDIR)$(PAMDIR)" "$(DESTDIR)$(SBINDIR)" "$(DESTDIR)$(DOCDIR)/examples" \
	    "$(DESTDIR)$(DOCDIR)/docs" "$(DESTDIR)$(CONFDIR)" "$(DESTDIR)$(TMPFILESDIR)" "$(DESTDIR)$(MANDIR)/man5" \
	    "$(DESTDIR)$(MANDIR)/man8" "$(DESTDIR)$(BASHDIR)" "$(DESTDIR)$(ZSHDIR)" "$(DESTDIR)$(FISHDIR)"
	install -d -m 0700 "$(DESTDIR)$(STATEDIR)"
	install -m 0644 "$(MODULE)" "$(DESTDIR)$(PAMDIR)/.pam_prefixquota.so.new"
	mv -f "$(DESTDIR)$(PAMDIR)/.pam_prefixquota.so.new" "$(DESTDIR)$(PAMDIR)/pam_prefixquota.so"
	install -m 0755 "$(COMMAND)" "$(DESTDIR)$(SBINDIR)/prefixquota"
	install -m 0644 $(EXAMPLES) "$(DESTDIR)$(DOCDIR)/examples"
	install -m 0644 $(DOCS) "$(DESTDIR)$(DOCDIR)"
	install -m 0644 $(DOCPAGES) "$(DESTDIR)$(DOCDIR)/docs"
	ln -sfn examples "$(DESTDIR)$(DOCDIR)/pam.d-examples"
	install -m 0644 $(PAGES8) "$(DESTDIR)$(MANDIR)/man8"
	install -m 0644 $(PAGES5) "$(DESTDIR)$(MANDIR)/man5"
	install -m 0644 "$(PAGESDIR)/completions.bash" "$(DESTDIR)$(BASHDIR)/prefixquota"
	install -m 0644 "$(PAGESDIR)/completions.zsh" "$(DESTDIR)$(ZSHDIR)/_prefixquota"
	install -m 0644 "$(PAGESDIR)/completions.fish" "$(DESTDIR)$(FISHDIR)/prefixquota.fish"
	echo 'd $(STATEDIR) 0700 root root -' >"$(DESTDIR)$(TMPFILESDIR)/prefixquota.conf"
	chmod 0644 "$(DESTDIR)$(TMPFILESDIR)/prefixquota.conf"
	@if [ -e "$(DESTDIR)$(CONFDIR)/prefixquota.conf" ]; then \
	    echo "Kept $(CONFDIR)/prefixquota.conf; $(DOCDIR)/examples/prefixquota.conf lists all settings."; \
	else \
	    install -m 0644 pam.d-examples/prefixquota.conf "$(DESTDIR)$(CONFDIR)/prefixquota.conf"; \
	fi
	@echo "Installed. To switch it on for sshd: prefixquota enable sshd"

uninstall:  ## remove what install put there, except settings and store
	@test -n "$(PAMDIR)" || { echo "PAM's module directory was not found; please give PAMDIR=" >&2; exit 1; }
	rm -f "$(DESTDIR)$(PAMDIR)/pam_prefixquota.so" "$(DESTDIR)$(SBINDIR)/prefixquota" \
	    "$(DESTDIR)$(TMPFILESDIR)/prefixquota.conf" \
	    $(patsubst $(PAGESDIR)/%,"$(DESTDIR)$(MANDIR)/man8/%",$(PAGES8)) \
	    $(patsubst $(PAGESDIR)/%,"$(DESTDIR)$(MANDIR)/man5/%",$(PAGES5)) \
	    "$(DESTDIR)$(BASHDIR)/prefixquota" "$(DESTDIR)$(ZSHDIR)/_prefixquota" \
	    "$(DESTDIR)$(FISHDIR)/prefixquota.fish"
	cd "$(DESTDIR)$(DOCDIR)" 2>/dev/null && rm -f $(DOCS) $(DOCPAGES) pam.d-examples \
	    $(EXAMPLES:pam.d-examples/%=examples/%) || true
	rmdir "$(DESTDIR)$(DOCDIR)/examples" "$(DESTDIR)$(DOCDIR)/docs" "$(DESTDIR)$(DOCDIR)" 2>/dev/null || true
	@echo "Kept: $(CONFDIR)/prefixquota.conf and $(STATEDIR)."
	@old=$$(ls "$(DESTDIR)"/etc/pam.d/*.prefixquota-backup 2>/dev/null || true); \
	if [ -n "$$old" ]; then echo "Kept the stacks as they were before enable:" $$old; fi
	@left=$$(grep -lsE --exclude='*.prefixquota-*' '^[^#]*pam_prefixquota\.so' "$(DESTDIR)"/etc/pam.d/* || true); \
	if [ -n "$$left" ]; then \
	    echo "These still name the module:" $$left; \
	    echo "With module_unknown=ignore, as shipped, such lines are passed over; other lines refuse every login."; \
	fi

test: test-deps all  ## check style and documentation, run all tests on the built module (as root)
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) clippy --locked --lib --no-default-features --features bundled -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items
	shellcheck $(SCRIPTS)
	PREFIXQUOTA_MODULE="$(abspath $(MODULE))" $(CARGO) test --locked

# Miri looks at everything else as well that is tested without SQLite. Isolation is what keeps it from
# files, of which settings are read.
miri: deps  ## run the file with unsafe code under Miri (needs the nightly toolchain with miri)
	MIRIFLAGS=-Zmiri-disable-isolation $(CARGO) +nightly miri test --locked --lib --no-default-features --features bundled

demo: test-packages all  ## attack a real sshd from a whole /32, and watch (as root, one minute)
	@tests/demo.sh "$(MODULE)" "$(COMMAND)" "$(PAMDIR)"

# Debian puts pam_abl into the stacks of all services when it is installed: it is taken out again.
bench-deps: test-deps  ## install the peers of the benchmark besides, without starting any
	@profile=/usr/share/pam-configs/abl; before=$$(ls $$profile 2>/dev/null); status=0; \
	tests/need.sh "$$profile:libpam-abl" '/lib/*/security/pam_faillock.so:libpam-modules' \
	    fail2ban-server:fail2ban sshguard:sshguard \
	    /usr/lib/python3/dist-packages/pyinotify.py:python3-pyinotify || status=$$?; \
	if [ -z "$$before" ] && [ -e "$$profile" ]; then pam-auth-update --package --remove abl; fi; \
	exit $$status

bench: bench-deps all  ## measure cost and strength beside the peers, and how fast logs are read
	PREFIXQUOTA_MODULE="$(abspath $(MODULE))" $(CARGO) bench --locked --bench cost
	PREFIXQUOTA_MODULE="$(abspath $(MODULE))" $(CARGO) bench --locked --bench strength
	$(CARGO) bench --locked --bench replay

clean:  ## remove what was built
	$(CARGO) clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12
