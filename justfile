# Short names for daily commands. `just` alone lists them.

_list:
    @just --list --unsorted

# Run a development server with a receiver that verifies each delivery
run *arguments:
    cargo run --release -- dev {{arguments}}

# Run all tests, or those whose name contains the filter
test *filter:
    cargo test {{filter}}

# Run the tests of the pages in Chromium
browser *filter:
    .ci/browser
    POSTRIDER_TEST_BROWSER=chromium cargo test --test browser -- {{filter}}

# Make the pictures of the documents anew; needs pngquant
pictures:
    just browser the_pictures_of_the_documents
    mkdir -p docs/images
    for picture in target/browser/pictures/*.png; do pngquant --force --strip 64 --output docs/images/${picture##*/} $picture; done

# Fail the power of the server in the worlds of these seeds, such as 0..500; docs/proof.md says what that shows
power seeds="0..70" jobs="2":
    POSTRIDER_POWER_SEEDS={{seeds}} POSTRIDER_POWER_JOBS={{jobs}} cargo test --test power nothing_acknowledged -- --nocapture

# Simulate the worlds of these seeds, such as 0..1000; docs/proof.md says what that shows
sim seeds="0..300" jobs="2":
    POSTRIDER_SIM_SEEDS={{seeds}} POSTRIDER_SIM_JOBS={{jobs}} cargo test --test sim worlds -- --nocapture

# Check the format and the lints
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# Format the code
fmt:
    cargo fmt --all

# Run every step of CI
ci:
    .ci/run

# Build the API documentation of the code and open it
docs:
    cargo doc --no-deps --open
