//! How many rows are loaded at a time: a page ends by the size of its bodies, known before they are; pure.

use std::collections::BTreeMap;

use crate::model::TxId;
use crate::store::OpenRow;

/// Bytes of bodies in a page. What is larger goes alone.
pub(super) const PAGE: usize = 8 << 20;

/// Rows whose bodies are in memory together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    pub rows: Vec<OpenRow>,
    pub bytes: usize,
}

/// In the order of the rows. One whose size is not known has no body.
pub(super) fn pages(rows: Vec<OpenRow>, sizes: &BTreeMap<TxId, usize>) -> Vec<Page> {
    let mut pages: Vec<Page> = Vec::new();
    for row in rows {
        let bytes = sizes.get(&row.tx_id).copied().unwrap_or(0);
        match pages.last_mut() {
            Some(page) if page.bytes.saturating_add(bytes) <= PAGE => {
                page.rows.push(row);
                page.bytes += bytes;
            }
            Some(_) | None => pages.push(Page { rows: vec![row], bytes }),
        }
    }
    pages
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Destination, JournalState, Mode};

    fn row() -> OpenRow {
        OpenRow {
            tx_id: TxId::mint(),
            destination: Destination::queue("rabbit", "myQueue"),
            mode: Mode::Own,
            state: JournalState::Ready,
            attempts: 0,
            max_attempts: 6,
            publishes: 0,
            owner: None,
            running_by: None,
            started: None,
            published_at: None,
            published: None,
            due: true,
            publish_due: true,
            has_due_row: false,
        }
    }

    /// The sizes of what goes together.
    fn together(sizes: &[usize]) -> Vec<Vec<usize>> {
        let rows: Vec<OpenRow> = sizes.iter().map(|_| row()).collect();
        let known: BTreeMap<TxId, usize> = rows.iter().zip(sizes).map(|(row, size)| (row.tx_id, *size)).collect();
        let pages = pages(rows, &known);
        assert!(pages.iter().all(|page| page.bytes == page.rows.iter().map(|row| known[&row.tx_id]).sum::<usize>()));
        pages.iter().map(|page| page.rows.iter().map(|row| known[&row.tx_id]).collect()).collect()
    }

    #[test]
    fn a_page_ends_by_size_and_what_is_too_large_goes_alone() {
        const HALF: usize = PAGE / 2;
        assert_eq!(together(&[1, 2, 3]), [vec![1, 2, 3]]);
        assert_eq!(together(&[HALF, HALF, 1]), [vec![HALF, HALF], vec![1]]);
        assert_eq!(
            together(&[1, 9 * PAGE, 2, HALF + 1, HALF]),
            [vec![1], vec![9 * PAGE], vec![2, HALF + 1], vec![HALF]]
        );
        assert_eq!(together(&[]), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn a_row_whose_message_was_deleted_takes_no_room() {
        let rows = vec![row(), row()];
        assert_eq!(pages(rows.clone(), &BTreeMap::new()), [Page { rows, bytes: 0 }]);
    }
}
