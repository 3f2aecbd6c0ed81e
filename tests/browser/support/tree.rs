//! What a screen reader gets: the accessibility tree of Chromium, and the rules that every page keeps in it.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::tab::Tab;

/// Roles of what a reader operates. Each has a name, or the reader hears only "button".
const OPERATED: [&str; 16] = [
    "button",
    "checkbox",
    "combobox",
    "DisclosureTriangle",
    "Iframe",
    "link",
    "listbox",
    "menuitem",
    "option",
    "radio",
    "searchbox",
    "slider",
    "spinbutton",
    "switch",
    "tab",
    "textbox",
];

/// Roles under which something may take the focus without being operated: it scrolls, or a link leads to it.
const FOCUSED: [&str; 8] = ["main", "region", "group", "code", "Pre", "alert", "RootWebArea", "status"];

/// One node of the tree that a reader gets, in the order of the document.
struct Node {
    role: String,
    name: String,
    properties: HashMap<String, Value>,
    /// Positions of the nodes below it.
    below: std::ops::Range<usize>,
}

/// Reads the tree of the page and checks it.
pub async fn tree_faults(tab: &Tab) -> Vec<String> {
    tab.call("Accessibility.enable", json!({})).await;
    let answer = tab.call("Accessibility.getFullAXTree", json!({})).await;
    // Else the browser keeps the tree up to date from now on.
    tab.call("Accessibility.disable", json!({})).await;
    faults_of(&in_order(answer["nodes"].as_array().expect("a list of nodes")))
}

/// The nodes that are not ignored, each before those below it.
fn in_order(nodes: &[Value]) -> Vec<Node> {
    let by_id: HashMap<&str, &Value> = nodes.iter().filter_map(|node| Some((node["nodeId"].as_str()?, node))).collect();
    let mut found = Vec::new();
    if let Some(root) = nodes.first() {
        add(root, &by_id, &mut found);
    }
    found
}

fn add(node: &Value, by_id: &HashMap<&str, &Value>, found: &mut Vec<Node>) {
    let text = |value: &Value| value["value"].as_str().unwrap_or_default().trim().to_owned();
    let at = found.len();
    let is_told = node["ignored"] != true;
    if is_told {
        let properties = node["properties"].as_array().into_iter().flatten();
        let properties = properties
            .map(|it| (it["name"].as_str().unwrap_or_default().to_owned(), it["value"]["value"].clone()))
            .collect();
        found.push(Node { role: text(&node["role"]), name: text(&node["name"]), properties, below: 0..0 });
    }
    for child in node["childIds"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if let Some(child) = by_id.get(child) {
            add(child, by_id, found);
        }
    }
    if is_told {
        found[at].below = at + 1..found.len();
    }
}

impl Node {
    fn is(&self, role: &str) -> bool {
        self.role == role
    }

    fn has(&self, property: &str) -> bool {
        self.properties.get(property) == Some(&Value::Bool(true))
    }

    fn below<'n>(&self, nodes: &'n [Self]) -> &'n [Self] {
        &nodes[self.below.clone()]
    }
}

fn faults_of(nodes: &[Node]) -> Vec<String> {
    let mut faults = Vec::new();
    for node in nodes {
        let Node { role, name, .. } = node;
        if name.is_empty() && OPERATED.contains(&role.as_str()) {
            faults.push(format!("a reader hears no name of a {role} {}", around(node, nodes)));
        }
        let is_known = OPERATED.contains(&role.as_str()) || FOCUSED.contains(&role.as_str());
        if node.has("focusable") && !is_known && !is_field_of_browser(role) {
            faults.push(format!("a reader hears no role of what takes the focus: {role} {name:?}"));
        }
        if name.is_empty() && (node.is("region") || node.is("image") || node.is("table")) {
            faults.push(format!("a reader hears no name of a {role} {}", around(node, nodes)));
        }
        if node.is("table") && !node.below(nodes).iter().any(|it| it.is("columnheader")) {
            faults.push(format!("a reader hears no heads of the columns of {name:?}"));
        }
        if is_live(node) && node.below(nodes).iter().any(|it| it.is("table") || it.is("figure")) {
            faults.push(format!("a reader hears all of a table or figure at each change of a {role}"));
        }
    }
    faults.extend(heading_faults(nodes));
    for landmark in ["main", "banner", "navigation"] {
        let all: Vec<&str> = nodes.iter().filter(|node| node.is(landmark)).map(|node| node.name.as_str()).collect();
        let is_single = landmark != "navigation";
        let has_same = (1..all.len()).any(|at| all[..at].contains(&all[at]));
        if (is_single && all.len() > 1) || has_same {
            faults.push(format!("a reader cannot tell these apart: {landmark} {all:?}"));
        }
    }
    faults
}

/// Says at once when it changes.
fn is_live(node: &Node) -> bool {
    node.properties.get("live").and_then(Value::as_str).is_some_and(|live| live != "off")
}

/// The parts of a field for a date or a file, which the browser makes.
fn is_field_of_browser(role: &str) -> bool {
    ["Date", "DateTime", "InputTime", "ColorWell", "file"].contains(&role)
}

/// What stands in a node that has no name.
fn around(node: &Node, nodes: &[Node]) -> String {
    let names: Vec<&str> = node.below(nodes).iter().map(|it| it.name.as_str()).filter(|it| !it.is_empty()).collect();
    format!("around {:?}", names.join(" ").chars().take(60).collect::<String>())
}

/// A reader jumps from heading to heading: the first is of level 1, and none skips a level on the way down.
fn heading_faults(nodes: &[Node]) -> Vec<String> {
    let mut faults = Vec::new();
    let mut last = 0;
    for node in nodes.iter().filter(|node| node.is("heading")) {
        let level = node.properties.get("level").and_then(Value::as_u64).unwrap_or_default();
        if level > last + 1 {
            faults.push(format!("a heading of level {level} follows one of level {last}: {:?}", node.name));
        }
        if node.name.is_empty() {
            faults.push(format!("a heading of level {level} has no name"));
        }
        last = level;
    }
    if last == 0 {
        faults.push("a reader finds no heading".to_owned());
    }
    faults
}
