//! Checks the documentation against the tree: a code block that shows a file equals that file, the anchor of a link is
//! a heading, and every error code and every setting is documented.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Marks a code block that shows a whole file: `<!-- file: samples/python/verify.py -->`.
const SHOWS: (&str, &str) = ("<!-- file: ", " -->");

/// The files whose code block in the page differs from them. `read` takes a path relative to the page's folder.
fn stale_copies(text: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let mut stale = Vec::new();
    for rest in text.split(SHOWS.0).skip(1) {
        let Some((file, rest)) = rest.split_once(SHOWS.1) else { continue };
        let block = rest.trim_start().strip_prefix("```").and_then(|rest| rest.split_once('\n'));
        let shown = block.and_then(|(_language, rest)| rest.split_once("\n```"));
        if shown.map(|(code, _)| code) != read(file).as_deref().map(str::trim_end) {
            stale.push(file.to_owned());
        }
    }
    stale
}

/// The anchors of a page's headings, as common renderers name them.
fn anchors(text: &str) -> BTreeSet<String> {
    prose(text)
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')))
        .map(anchor)
        .collect()
}

fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// The lines outside code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut in_code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        in_code ^= fence;
        !in_code && !fence
    })
}

/// The links `page.md#anchor` and `#anchor` whose anchor matches no heading.
fn dead_anchors(own: &str, text: &str, read: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let targets =
        prose(text).flat_map(|line| line.split("](").skip(1)).filter_map(|rest| rest.split([')', ' ']).next());
    let dead = targets.filter(|target| {
        let Some((page, anchor)) = target.split_once('#') else { return false };
        if page.contains("://") || !(page.is_empty() || page.ends_with(".md")) {
            return false;
        }
        let text = if page.is_empty() { read(own) } else { read(page) };
        !text.is_some_and(|text| anchors(&text).contains(anchor))
    });
    dead.map(str::to_owned).collect()
}

/// The lower-case strings that `match` arms return. Error codes look like this, and sentences do not.
fn yielded(source: &str) -> impl Iterator<Item = &str> {
    let literals = source.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next());
    literals.filter(|text| !text.is_empty() && text.bytes().all(|c| c.is_ascii_lowercase() || c == b'_'))
}

fn variables(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
    words.filter(|word| word.len() > "POSTRIDER_".len() && word.starts_with("POSTRIDER_")).collect()
}

fn pages(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.') || name == "target");
        if path.is_dir() && !hidden {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_pages_match_the_tree() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut found, mut faults) = (Vec::new(), Vec::new());
    pages(root, &mut found);
    assert!(found.len() > 10, "the pages were not found at {}", root.display());
    for page in found {
        let (text, folder) = (read(&page), page.parent().unwrap_or(root));
        let beside = |file: &str| fs::read_to_string(folder.join(file)).ok();
        let own = page.file_name().unwrap_or_default().to_string_lossy().into_owned();
        faults.extend(stale_copies(&text, beside).iter().map(|file| format!("{own} does not show {file} as it is")));
        faults.extend(dead_anchors(&own, &text, beside).iter().map(|link| format!("{own}: no heading for {link}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_error_code_and_every_setting_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = ["crates/api/src/error.rs", "crates/api/src/error_code.rs"];
    let sources: Vec<String> = sources.iter().filter_map(|file| fs::read_to_string(root.join(file)).ok()).collect();
    let codes: BTreeSet<&str> = sources.iter().flat_map(|source| yielded(source)).collect();
    let page = read(&root.join("docs/errors.md"));
    let sections: BTreeSet<&str> = prose(&page).filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(codes, sections);
    assert!(codes.contains("not_found"));

    let mut asked = BTreeSet::new();
    let sources: Vec<String> = fs::read_dir(root.join("src/cli"))
        .expect("a readable folder")
        .filter_map(|entry| fs::read_to_string(entry.expect("a readable entry").path()).ok())
        .collect();
    sources.iter().for_each(|source| asked.extend(variables(source)));
    let page = read(&root.join("docs/operating.md"));
    assert_eq!(asked, variables(&page));
}

#[test]
fn a_stale_copy_is_found() {
    let page = "# A\n\n<!-- file: a.py -->\n```python\nx = 1\n```\n\n<!-- file: b.py -->\n\n```python\ny\n```\n";
    let now = |a: &str, b: &str| {
        let (a, b) = (a.to_owned(), b.to_owned());
        stale_copies(page, move |file| Some(if file == "a.py" { a.clone() } else { b.clone() }))
    };
    assert_eq!(now("x = 1\n", "y\n"), [""; 0]);
    assert_eq!(now("x = 2\n", "y\n"), ["a.py"]);
    assert_eq!(stale_copies(page, |_| None), ["a.py", "b.py"]);
}

#[test]
fn an_anchor_without_a_heading_is_found() {
    let page = "# A page\n[a](#a-page) [b](#b) [c](c.md#not_found) [d](c.md#gone) [e](https://e.example/#x)\n\
                ```sh\n# b\n```\n";
    let read = |file: &str| Some(if file == "c.md" { "### not_found\n".to_owned() } else { page.to_owned() });
    assert_eq!(dead_anchors("a.md", page, read), ["#b", "c.md#gone"]);
}
