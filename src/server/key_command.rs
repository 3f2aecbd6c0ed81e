//! The command that prints the master key, so that a key management service or a vault can hold it. It runs once at
//! each start. Neither its output nor its arguments are logged.

use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use zeroize::Zeroizing;

use postrider_crypto::MasterKey;
use postrider_domain::duration::format_duration;
use postrider_domain::limits;

use super::key_file;

#[derive(Debug, thiserror::Error)]
pub enum KeyCommandError {
    #[error("cannot run /bin/sh")]
    Run(#[source] std::io::Error),
    #[error("the command did not end within {}", format_duration(limits::MASTER_KEY_COMMAND_DEADLINE))]
    TooSlow,
    #[error("the command failed ({status}){said}")]
    Failed {
        status: ExitStatus,
        /// The first line of its standard error after a colon, or nothing.
        said: String,
    },
    #[error("the command printed more than {} bytes", limits::MASTER_KEY_COMMAND_BYTES)]
    TooLong,
    #[error("the command did not print 64 hexadecimal digits on its standard output")]
    Form,
}

/// Kills the command with everything it started.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            // It has usually ended by now.
            let _ = kill_process_group(leader, Signal::KILL);
        }
    }
}

/// Runs the command with the shell and reads the key that it prints.
pub async fn run(command: &str) -> Result<MasterKey, KeyCommandError> {
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(KeyCommandError::Run)?;
    let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let _group = Group(leader);
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let ended = async { tokio::join!(read(stdout), read(stderr), child.wait()) };
    let (printed, said, status) =
        tokio::time::timeout(limits::MASTER_KEY_COMMAND_DEADLINE, ended).await.map_err(|_| KeyCommandError::TooSlow)?;
    let status = status.map_err(KeyCommandError::Run)?;
    // Checked first: a command that goes on printing is ended by the closed pipe.
    if printed.len() > limits::MASTER_KEY_COMMAND_BYTES {
        return Err(KeyCommandError::TooLong);
    }
    if !status.success() {
        return Err(KeyCommandError::Failed { status, said: first_line(&said) });
    }
    let text = std::str::from_utf8(&printed).map_err(|_| KeyCommandError::Form)?;
    key_file::parse(text.trim()).ok_or(KeyCommandError::Form)
}

/// At most one byte more than the limit. Closes the pipe then, which ends a command that prints for ever.
async fn read(pipe: Option<impl AsyncRead + Unpin>) -> Zeroizing<Vec<u8>> {
    let most = limits::MASTER_KEY_COMMAND_BYTES + 1;
    // Never grown, because that would leave copies of the key in memory.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * most));
    if let Some(pipe) = pipe {
        // What was read before an error counts.
        let _ = pipe.take(most as u64).read_to_end(&mut bytes).await;
    }
    bytes
}

fn first_line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty());
    line.map(|line| format!(": {}", line.chars().filter(|c| !c.is_control()).collect::<String>())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_domain::error_chain::Chain;

    async fn failure(command: &str) -> String {
        Chain(&run(command).await.unwrap_err()).to_string()
    }

    #[tokio::test]
    async fn the_key_is_what_the_command_prints() {
        let key = run("printf '%s\\n' $(printf '0f%.0s' $(seq 32))").await.unwrap();
        assert_eq!(key.id(), MasterKey::new(&[15; 32]).id());
    }

    #[tokio::test]
    async fn a_failed_command_is_reported_with_its_first_line() {
        let said = failure("echo 'not logged in' >&2; echo 'hint' >&2; exit 3").await;
        assert_eq!(said, "the command failed (exit status: 3): not logged in");
        assert_eq!(failure("exit 1").await, "the command failed (exit status: 1)");
        assert!(failure("kill -9 $$").await.contains("signal: 9"));
    }

    #[tokio::test]
    async fn other_output_is_refused_and_not_repeated() {
        for printed in ["hunter2", "", "0f0f"] {
            let said = failure(&format!("printf '{printed}'")).await;
            assert_eq!(said, "the command did not print 64 hexadecimal digits on its standard output");
        }
        let said = failure("head -c 4097 /dev/zero | tr '\\0' 0").await;
        assert_eq!(said, "the command printed more than 4096 bytes");
        let said = failure("yes").await;
        assert_eq!(said, "the command printed more than 4096 bytes");
        let said = failure("printf '%4096s'").await;
        assert!(said.contains("64 hexadecimal digits"), "{said}");
    }
}
