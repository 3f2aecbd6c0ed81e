//! The binary: runs a command and converts its result into an exit code.

use std::io::{self, Write as _};
use std::process::ExitCode;

use postrider::lossy_writer::LossyWriter;
use postrider_domain::limits;
use postrider_domain::visible::VisibleLines;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match postrider::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            if !failed.is_shown() {
                report(&failed.error);
            }
            ExitCode::from(failed.code)
        }
    }
}

/// Neither a closed standard error nor one that nobody reads may keep the process from its end.
fn report(error: &anyhow::Error) {
    let text = format!("postrider: {}\n", VisibleLines(format_args!("{error:#}")));
    if let Ok(mut writer) = LossyWriter::on(io::stderr(), |_| String::new()) {
        // Taking a line never fails.
        drop(writer.write_all(text.as_bytes()));
        writer.flush_within(limits::LINE_FLUSH_WAIT);
    }
}
