//! What the process has logged. Its lines are written by a thread of their own: an answer may be there before the line about it.

use super::{App, SOON, eventually};

impl App {
    /// The lines with these words, once there is one.
    pub async fn log_has(&self, words: &str) -> Vec<String> {
        eventually(&format!("the log has {words:?}"), SOON, async || {
            let lines = self.log_lines(words);
            if lines.is_empty() { Err(self.log_text()) } else { Ok(lines) }
        })
        .await
    }
}
