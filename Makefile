# make demo   installs what is missing, builds, and runs the main job
# make test   installs what is missing, and passes every test
# make kernel the guest kernel alone (KERNEL_SRC=DIR or TAR for another source)
# make guest  kernel, firmware image and initrds under target/guest
# make check  formatting, lints, licences and sources of dependencies; the agent for ppc64le where Debian's cross
#             compiler can be had

BINARIES = -p sealpod -p sealpod-agent -p sealpod-broker -p sealpod-relay -p sealpod-emulator -p initrd

GUEST = $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)/guest

.PHONY: demo test check setup kernel guest build clean

demo: guest
	cargo run --release -p sealpod-demo

test: guest
	cargo build --workspace --example echo_init --example scratch_init --example scripted-qemu
	SEALPOD_TEST_KERNEL=$(GUEST)/bzImage SEALPOD_FIRMWARE=$(GUEST)/firmware.fd cargo test --workspace --lib --bins --tests

guest: setup build
	cargo xtask guest

kernel: setup
	cargo xtask kernel $(if $(KERNEL_SRC),--source $(KERNEL_SRC))

build: setup
	cargo build --release $(BINARIES)
	cargo xtask pkcs11

check: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny --no-default-features
	cargo deny --offline check bans licenses sources
	cargo xtask ppc64le --check --if-available

setup:
	@scripts/setup

clean:
	cargo clean
