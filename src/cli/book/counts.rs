//! Failing addresses in memory, with the count of every prefix at hand.
//!
//! A binary tree by the bits of the key, in which each branch keeps the sum of its halves. Decay is
//! linear, so such a sum fades like one count, and whoever asks for the counts around an address
//! gets one row for each half that lies beside its way down: a handful instead of thousands.

use std::mem;
use std::net::Ipv6Addr;

use pam_prefixquota::count::{Count, Failures, Open, Pace};
use pam_prefixquota::decay::FADED;

/// Addresses of one family, each with its count.
pub struct Counts {
    pace: Pace,
    root: Option<Node>,
}

enum Node {
    Leaf(Failures),
    Branch(Box<Branch>),
}

/// The narrowest prefix around two or more addresses.
struct Branch {
    /// The first bit in which the halves differ.
    bit: u32,
    /// Some key inside, and the sum of all counts.
    sum: Failures,
    /// Before this time nothing inside has faded, Unix milliseconds.
    fades: i64,
    low: Node,
    high: Node,
}

impl Counts {
    /// None yet.
    pub fn new(pace: Pace) -> Counts {
        Counts { pace, root: None }
    }

    /// The count of one address.
    pub fn get(&self, key: Ipv6Addr) -> Option<Count> {
        let mut node = self.root.as_ref()?;
        loop {
            match node {
                Node::Leaf(row) => return (row.key == key).then_some(row.count),
                Node::Branch(branch) => node = branch.half(key),
            }
        }
    }

    /// What a tally around `key` needs of the prefix of `bits` bits around it: the address itself,
    /// and for each longer prefix in which others lie beside it one row for all of them.
    pub fn around(&self, key: Ipv6Addr, bits: u32) -> Vec<Failures> {
        let mut rows = Vec::new();
        let mut next = self.root.as_ref();
        while let Some(node) = next {
            next = None;
            match node {
                Node::Branch(branch) if branch.covers(key) => {
                    if branch.bit >= bits {
                        rows.push(branch.other_half(key).sum());
                    }
                    next = Some(branch.half(key));
                }
                node if shared(node.sum().key, key) >= bits => rows.push(node.sum()),
                _ => {}
            }
        }
        rows
    }

    /// Sets the count of one address, which may be new.
    pub fn set(&mut self, row: Failures, now: i64) {
        match &mut self.root {
            Some(root) => root.set(row, now, self.pace),
            None => self.root = Some(Node::Leaf(row)),
        }
    }

    /// Forgets one address.
    pub fn remove(&mut self, key: Ipv6Addr, now: i64) {
        self.root = self.root.take().and_then(|root| root.without(key, now, self.pace));
    }

    /// Up to `limit` addresses in the prefix of `bits` bits around `key` that may be forgotten, in
    /// the order of their keys; not `key` itself.
    pub fn faded(&self, key: Ipv6Addr, bits: u32, now: i64, limit: usize) -> Vec<Ipv6Addr> {
        let mut found = Vec::new();
        let mut todo: Vec<&Node> = self.root.iter().collect();
        while let Some(node) = todo.pop() {
            let is_inside = shared(node.sum().key, key) >= bits.min(node.bit());
            if found.len() >= limit || !is_inside || node.fades(self.pace) > now {
                continue;
            }
            match node {
                Node::Leaf(row) if row.key != key && row.count.is_faded(now, self.pace) => {
                    found.push(row.key);
                }
                Node::Leaf(_) => {}
                Node::Branch(branch) => todo.extend([&branch.high, &branch.low]),
            }
        }
        found
    }
}

impl Node {
    /// How many leading bits all inside share.
    fn bit(&self) -> u32 {
        match self {
            Node::Leaf(_) => Ipv6Addr::BITS,
            Node::Branch(branch) => branch.bit,
        }
    }

    fn sum(&self) -> Failures {
        match self {
            Node::Leaf(row) => *row,
            Node::Branch(branch) => branch.sum,
        }
    }

    fn fades(&self, pace: Pace) -> i64 {
        match self {
            Node::Leaf(row) => fades(&row.count, pace),
            Node::Branch(branch) => branch.fades,
        }
    }

    fn set(&mut self, row: Failures, now: i64, pace: Pace) {
        match self {
            Node::Leaf(old) if old.key == row.key => *old = row,
            Node::Branch(branch) if branch.covers(row.key) => {
                branch.half_mut(row.key).set(row, now, pace);
                branch.add_up(now, pace);
            }
            _ => {
                let old = mem::replace(self, Node::Leaf(row));
                let new = mem::replace(self, Node::Leaf(row));
                *self = Node::join(old, new, now, pace);
            }
        }
    }

    fn without(self, key: Ipv6Addr, now: i64, pace: Pace) -> Option<Node> {
        match self {
            Node::Leaf(row) => (row.key != key).then_some(self),
            Node::Branch(branch) if !branch.covers(key) => Some(Node::Branch(branch)),
            Node::Branch(branch) => {
                let Branch { bit, low, high, .. } = *branch;
                let (low, high) = if is_set(key, bit) {
                    (Some(low), high.without(key, now, pace))
                } else {
                    (low.without(key, now, pace), Some(high))
                };
                match (low, high) {
                    (Some(low), Some(high)) => Some(Node::join(low, high, now, pace)),
                    (one, other) => one.or(other),
                }
            }
        }
    }

    /// The branch over two nodes of which neither covers the other.
    fn join(a: Node, b: Node, now: i64, pace: Pace) -> Node {
        let bit = shared(a.sum().key, b.sum().key);
        let (low, high) = if is_set(a.sum().key, bit) { (b, a) } else { (a, b) };
        let mut branch = Branch { bit, sum: low.sum(), fades: 0, low, high };
        branch.add_up(now, pace);
        Node::Branch(Box::new(branch))
    }
}

impl Branch {
    fn covers(&self, key: Ipv6Addr) -> bool {
        shared(self.sum.key, key) >= self.bit
    }

    fn half(&self, key: Ipv6Addr) -> &Node {
        if is_set(key, self.bit) { &self.high } else { &self.low }
    }

    fn other_half(&self, key: Ipv6Addr) -> &Node {
        if is_set(key, self.bit) { &self.low } else { &self.high }
    }

    fn half_mut(&mut self, key: Ipv6Addr) -> &mut Node {
        if is_set(key, self.bit) { &mut self.high } else { &mut self.low }
    }

    /// From the halves each time, so that no error of rounding ever adds up.
    fn add_up(&mut self, now: i64, pace: Pace) {
        let (low, high) = (self.low.sum(), self.high.sum());
        let count = Count {
            level: low.count.left(now, pace) + high.count.left(now, pace),
            slow: low.count.slow_left(now, pace) + high.count.slow_left(now, pace),
            at: now,
            since: now,
            open: Open { since: now, current: 0, before: 0 },
        };
        self.sum = Failures { key: low.key, count };
        self.fades = self.low.fades(pace).min(self.high.fades(pace));
    }
}

/// A time before which a count has not faded, and shortly after which it has.
fn fades(count: &Count, pace: Pace) -> i64 {
    let lives = |level: f64, half_life: i64| (level / FADED).log2() * half_life as f64;
    let slow = pace.slow.map_or(0.0, |half_life| lives(count.slow, half_life));
    // `as` saturates: a level of 0 has faded since ever. One less, in case of a rounding error.
    count.at.saturating_add(lives(count.level, pace.half_life).max(slow) as i64).saturating_sub(1)
}

fn shared(a: Ipv6Addr, b: Ipv6Addr) -> u32 {
    (a.to_bits() ^ b.to_bits()).leading_zeros()
}

fn is_set(key: Ipv6Addr, bit: u32) -> bool {
    key.to_bits().checked_shr(127_u32.saturating_sub(bit)).unwrap_or(0) & 1 == 1
}
