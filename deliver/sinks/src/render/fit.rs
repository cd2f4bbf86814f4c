//! The most detailed form of a message that a limit allows.

/// How much a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Detail {
    /// Pages of a group.
    pub(crate) pages: usize,
    /// Parts of a page, the most important first.
    pub(crate) parts: usize,
    /// Lines of a part.
    pub(crate) lines: usize,
    /// Length of a value.
    pub(crate) chars: usize,
}

/// From everything to the title alone.
const LEVELS: [Detail; 7] = [
    Detail { pages: 15, parts: usize::MAX, lines: 12, chars: 1000 },
    Detail { pages: 15, parts: usize::MAX, lines: 6, chars: 400 },
    Detail { pages: 10, parts: 12, lines: 5, chars: 200 },
    Detail { pages: 10, parts: 8, lines: 4, chars: 150 },
    Detail { pages: 5, parts: 5, lines: 3, chars: 100 },
    Detail { pages: 3, parts: 2, lines: 2, chars: 80 },
    Detail { pages: 1, parts: 0, lines: 1, chars: 60 },
];

// === impl Detail ===

impl Detail {
    /// Everything.
    pub(crate) const FULL: Self = LEVELS[0];
}

/// Returns the first form that is allowed, or else the last one: it has the title and little more.
pub(crate) fn fit<T>(build: impl Fn(Detail) -> T, allowed: impl Fn(&T) -> bool) -> T {
    let mut form = build(LEVELS[0]);
    for detail in &LEVELS[1..] {
        if allowed(&form) {
            break;
        }
        form = build(*detail);
    }
    form
}
