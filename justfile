# Short names for what is done daily. `just` alone lists them.

_list:
    @just --list --unsorted

# Run a server on this desk, with a receiver that verifies what arrives
run *arguments:
    cargo run --release -- dev {{arguments}}

# Run all tests, or those whose name contains the filter
test *filter:
    cargo test {{filter}}

# Check the format and the lints
lint:
    cargo fmt --check
    cargo clippy --all-targets -- -D warnings

# Format the code
fmt:
    cargo fmt

# Do what CI does
ci:
    .ci/run

# Build the documentation of the code and open it
docs:
    cargo doc --no-deps --open
