//! The path patterns of one host as a tree of segments.
//!
//! A search tries better matches before worse ones and backtracks. Each node can be reached in only
//! one way, so a search never visits a node twice, and literal segments are hashed. So the cost of
//! a search depends on the segments of the path, not on the number of routes.

use super::conditions::Conditions;
use super::criteria::Methods;
use super::hash::Table;
use super::pattern::{Pattern, Segment};

/// The patterns of one host.
#[derive(Debug, Default)]
pub(super) struct Tree {
    root: Node,
}

/// The compiled form of one pattern of one route.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) route: usize,
    pub(super) methods: Methods,
    pub(super) conditions: Conditions,
    pub(super) pattern: Pattern,
}

/// The entries at one place in the tree, the better ones first: their patterns differ only in the names of
/// parameters. No two of one rank name the same method and can be met by the same request.
pub(super) type Leaf = Vec<Entry>;

#[derive(Debug, Default)]
struct Node {
    fixed: Table<Node>,
    param: Option<Box<Node>>,
    any: Option<Box<Node>>,
    /// Patterns that end here.
    here: Leaf,
    /// Patterns whose final `*` starts here.
    rest: Leaf,
}

impl Tree {
    /// The leaf of `pattern`, created if missing.
    pub(super) fn leaf(&mut self, pattern: &Pattern) -> &mut Leaf {
        let mut node = &mut self.root;
        for segment in pattern.segments() {
            node = match segment {
                Segment::Fixed(text) => node.fixed.entry(text.clone()).or_default(),
                Segment::Param(_) => node.param.get_or_insert_default(),
                Segment::Any => node.any.get_or_insert_default(),
                Segment::Rest => return &mut node.rest,
            };
        }
        &mut node.here
    }

    /// Passes every leaf that matches `path` to `choose`, the best first, until it accepts one.
    pub(super) fn search<'t, T>(
        &'t self,
        path: &str,
        choose: &mut impl FnMut(&'t Leaf) -> Option<T>,
    ) -> Option<T> {
        self.root.search(path, choose)
    }
}

impl Node {
    /// `tail` is what remains of the path: nothing, or text that begins with a slash.
    fn search<'t, T>(
        &'t self,
        tail: &str,
        choose: &mut impl FnMut(&'t Leaf) -> Option<T>,
    ) -> Option<T> {
        if tail.is_empty() {
            return choose(&self.here).or_else(|| choose(&self.rest));
        }
        let tail = tail.strip_prefix('/')?;
        let (segment, tail) =
            tail.split_at(tail.bytes().position(|byte| byte == b'/').unwrap_or(tail.len()));
        let found = self.fixed.get(segment).and_then(|node| node.search(tail, choose));
        if found.is_some() {
            return found;
        }
        if !segment.is_empty() {
            for node in [&self.param, &self.any].into_iter().flatten() {
                let found = node.search(tail, choose);
                if found.is_some() {
                    return found;
                }
            }
        }
        choose(&self.rest)
    }
}
