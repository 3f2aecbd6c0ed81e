//! Values that are not written on the command line: `@FILE`, `-` for standard input, files with secrets.

use std::fs;
use std::io::{self, IsTerminal, Read as _, Write as _};

use anyhow::Context as _;
use zeroize::Zeroizing;

use postrider_domain::limits;

use super::exit::Fault;

/// The bytes that `@FILE`, `-` or the text itself stands for.
pub fn bytes(given: &str) -> anyhow::Result<Vec<u8>> {
    match given.strip_prefix('@') {
        Some(path) => file(path),
        None if given == "-" => file("-"),
        None => Ok(given.as_bytes().to_vec()),
    }
}

/// The bytes of a file, or of standard input for `-`.
pub fn file(path: &str) -> anyhow::Result<Vec<u8>> {
    let mut read = Vec::new();
    let most = limits::INPUT_FILE_BYTES;
    let source: Box<dyn io::Read> = if path == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(fs::File::open(path).with_context(|| format!("cannot read the file {path}"))?)
    };
    let shown = if path == "-" { "standard input" } else { path };
    source.take(most as u64 + 1).read_to_end(&mut read).with_context(|| format!("cannot read {shown}"))?;
    if read.len() > most {
        return Err(Fault::Usage(format!("{shown} has more than {most} bytes")).into());
    }
    Ok(read)
}

/// The text of a file that holds a secret, without the line break at its end.
pub fn secret_file(path: &str) -> anyhow::Result<Zeroizing<String>> {
    let bytes = Zeroizing::new(file(path)?);
    let text = std::str::from_utf8(&bytes).map_err(|_| Fault::Usage(format!("{path} is not text in UTF-8")))?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    Ok(Zeroizing::new(text.strip_suffix('\r').unwrap_or(text).to_owned()))
}

/// The text of bytes that some editor or shell wrote: UTF-8 with or without a byte order mark, or UTF-16 with one.
pub fn text(bytes: Vec<u8>) -> anyhow::Result<String> {
    let utf16 = |bytes: &[u8], unit: fn([u8; 2]) -> u16| {
        let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| unit([pair[0], pair[1]])).collect();
        String::from_utf16(&units).ok()
    };
    let decoded = match bytes.as_slice() {
        [0xff, 0xfe, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8(rest.to_vec()).ok(),
        _ => String::from_utf8(bytes).ok(),
    };
    decoded.ok_or_else(|| Fault::Usage("the data is not text in UTF-8".to_owned()).into())
}

/// Asks before a write that cannot be undone. Without a terminal `--yes` answers.
pub fn confirm(question: &str, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Fault::Usage(format!("{question} Without a terminal, add --yes to go on.")).into());
    }
    let mut stderr = io::stderr();
    write!(stderr, "{} [y/N] ", postrider_domain::visible::Visible(question)).context("cannot ask on the terminal")?;
    stderr.flush().context("cannot ask on the terminal")?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).context("cannot read the answer")?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(anyhow::anyhow!("not confirmed: nothing was changed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_windows_writes_is_text() {
        let json = "{\r\n \"a\": \"é\"}";
        let utf16 = |mark: [u8; 2], unit: fn(u16) -> [u8; 2]| {
            mark.into_iter().chain(json.encode_utf16().flat_map(unit)).collect::<Vec<u8>>()
        };
        let marked = [&[0xef, 0xbb, 0xbf], json.as_bytes()].concat();
        for bytes in [
            json.as_bytes().to_vec(),
            marked,
            utf16([0xff, 0xfe], u16::to_le_bytes),
            utf16([0xfe, 0xff], u16::to_be_bytes),
        ] {
            assert_eq!(text(bytes).unwrap(), json);
        }
        assert!(text(vec![0xff, 0x41]).is_err());
    }

    #[test]
    fn a_secret_loses_only_the_line_break_at_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        for (written, read) in [("whsec_a\n", "whsec_a"), ("whsec_a\r\n", "whsec_a"), (" whsec_a\n\n", " whsec_a\n")] {
            std::fs::write(&path, written).unwrap();
            assert_eq!(secret_file(path.to_str().unwrap()).unwrap().as_str(), read);
        }
    }
}
