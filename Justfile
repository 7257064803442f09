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

# Installs the tools and scripts/stave into a directory of programs
install prefix="/usr/local":
    install -d {{prefix}}/bin
    find target/*/dist -maxdepth 1 -type f -executable -not -name example-web -not -name stave-tools -exec install -t {{prefix}}/bin {} +
    install scripts/stave {{prefix}}/bin/stave
