//! Reading management answers.

use serde_json::Value;

/// The elements of a list, whether it stands alone or under `items`.
pub fn items(value: &Value) -> &[Value] {
    let list = if value.is_array() { value } else { &value["items"] };
    list.as_array().unwrap_or_else(|| panic!("no list in {value}"))
}
