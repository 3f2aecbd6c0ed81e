//! The pages in a real Chromium, against the whole server: accessibility, layout, headers, and every action with and
//! without script.
//!
//! `.ci/browser` installs what these tests need. Without it they print a message and pass; in CI they fail.

mod dashboard;
mod delivery;
mod docs;
mod forms;
mod frames;
mod keyboard;
mod live;
mod operator;
mod pictures;
mod portal;
mod portal_frame;
mod script;
mod support;
