# Short names for the scripts. `just` is optional.

# The tools, ready for `install`
build:
    scripts/lock
    cargo build --locked --profile dist --workspace --bins

# Only lints
check:
    scripts/lock
    cargo fmt --all --check
    cargo clippy --locked --workspace --all-targets -- -D warnings

# All lints and tests (root)
test *arguments:
    scripts/test {{arguments}}

# The versions of dependencies, after a change of a Cargo.toml
lock *arguments:
    scripts/lock --update {{arguments}}

# The demo: an image, a container, a page, and nothing left (root)
demo:
    scripts/demo

# Stave and its peers, measured (root)
bench *arguments:
    scripts/bench {{arguments}}

# A tarball and a Debian package, in target/dist-packages
dist:
    scripts/dist

# The same without a package: bin, share and lib below a prefix
install prefix="/usr/local": dist
    cp -a target/dist-root/usr/. {{prefix}}
