//! Who may see whom, and which words belong to one module alone.

use crate::names::{Name, names_in};

/// Longest file, in lines.
pub const MAX_LINES: usize = 350;

/// For each module, the modules that it may name. What is not listed is not allowed.
const MAY_SEE: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("lifecycle", &[]),
    ("txn", &["model", "lifecycle"]),
    ("store", &["model", "lifecycle", "txn"]),
    ("broker", &["model", "lifecycle", "txn"]),
    ("relay", &["model", "lifecycle", "txn", "store", "broker"]),
    ("pipeline", &["model", "lifecycle", "txn", "store", "broker", "relay"]),
    ("inbound", &["model", "lifecycle", "txn", "store", "broker", "relay", "pipeline"]),
    ("receiver", &["model", "lifecycle", "txn", "store", "broker", "relay", "pipeline"]),
    ("console", &["model", "lifecycle", "txn", "store", "broker", "relay", "pipeline", "inbound", "receiver"]),
    (
        "config",
        &["model", "lifecycle", "txn", "store", "broker", "relay", "pipeline", "inbound", "receiver", "console"],
    ),
    ("telemetry", &["model", "lifecycle", "store"]),
    (
        "app",
        &[
            "model",
            "lifecycle",
            "txn",
            "store",
            "broker",
            "relay",
            "pipeline",
            "inbound",
            "receiver",
            "console",
            "config",
            "telemetry",
        ],
    ),
    ("dev", &["model", "lifecycle"]),
    (
        "cli",
        &[
            "model",
            "lifecycle",
            "txn",
            "store",
            "broker",
            "relay",
            "pipeline",
            "inbound",
            "receiver",
            "console",
            "config",
            "telemetry",
            "app",
            "dev",
        ],
    ),
    ("main", &["cli"]),
];

/// A crate that one module alone may name.
const OWNED: &[(&str, &str)] = &[
    ("tokio_postgres", "store"),
    ("deadpool_postgres", "store"),
    ("deadpool", "store"),
    ("postgres_types", "store"),
    ("refinery", "store"),
    ("refinery_core", "store"),
    ("lapin", "broker"),
    ("amq_protocol", "broker"),
    ("serde_saphyr", "config"),
];

/// What is wrong with one file of `src/`, each with path and line. `path`: relative to `src/`, with `/`.
pub fn violations(path: &str, source: &str) -> Vec<String> {
    let module = module_of(path);
    let Some(own) = module.first() else { return lib_only_declares(path, source) };
    let Some((_, may_see)) = MAY_SEE.iter().find(|(name, _)| name == own) else {
        return vec![format!("{path}: the module {own} has no place in the order of imports; add it to MAY_SEE")];
    };
    let mut found: Vec<String> = Vec::new();
    for name in names_in(source, &module) {
        found.extend(wrong(&name, own, may_see).map(|what| format!("{path}:{}: {what}", name.line)));
    }
    found.dedup();
    found.extend(too_long(path, source));
    found
}

fn wrong(name: &Name, own: &str, may_see: &[&str]) -> Option<String> {
    let [first, rest @ ..] = name.parts.as_slice() else { return None };
    if first != "crate" {
        let (_, owner) = OWNED.iter().find(|(krate, _)| krate == first)?;
        return (*owner != own).then(|| format!("{own} names {first}, which belongs to {owner}"));
    }
    match rest.first().map(String::as_str) {
        None | Some("*") => Some(format!("{own} takes the whole crate; name the module")),
        Some(module) if module == own || may_see.contains(&module) => None,
        // What is no module stands at the crate's root by a mistake of the reader or of the code: either must be seen.
        Some(module) => Some(format!("{own} must not see {module}")),
    }
}

fn too_long(path: &str, source: &str) -> Option<String> {
    let lines = source.lines().count();
    (lines > MAX_LINES).then(|| format!("{path}: {lines} lines, at most {MAX_LINES}: split it"))
}

fn lib_only_declares(path: &str, source: &str) -> Vec<String> {
    let names = names_in(source, &[]);
    names.iter().map(|name| format!("{path}:{}: lib.rs only declares modules", name.line)).collect()
}

/// `store/pool.rs` is `["store", "pool"]`, `store/mod.rs` and `store.rs` are `["store"]`, `lib.rs` is the root.
fn module_of(path: &str) -> Vec<String> {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Vec::new() } else { path.split('/').map(str::to_owned).collect() }
}
