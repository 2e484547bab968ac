//! Writes MaxMind DB files, right ones and others.
#![allow(clippy::indexing_slicing)]

use std::collections::HashMap;
use std::net::Ipv6Addr;

use ipnet::IpNet;

/// A value of the data section.
#[derive(Clone, Debug)]
pub enum Value {
    Text(String),
    Short(u16),
    Number(u32),
    Long(u64),
    Map(Vec<(String, Value)>),
    List(Vec<Value>),
    /// To an offset of the data section.
    Pointer(u32),
}

pub fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

pub fn map<const N: usize>(pairs: [(&str, Value); N]) -> Value {
    Value::Map(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// A record as MaxMind and DB-IP have it.
pub fn record(code: &str) -> Value {
    let names = map([("de", text("Land")), ("en", text("country"))]);
    map([("country", map([("iso_code", text(code)), ("names", names)]))])
}

impl Value {
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::Text(text) => {
                control(out, 2, text.len());
                out.extend(text.as_bytes());
            }
            Value::Short(number) => {
                control(out, 5, 2);
                out.extend(number.to_be_bytes());
            }
            Value::Number(number) => {
                control(out, 6, 4);
                out.extend(number.to_be_bytes());
            }
            Value::Long(number) => {
                control(out, 9, 8);
                out.extend(number.to_be_bytes());
            }
            Value::Map(pairs) => {
                control(out, 7, pairs.len());
                for (key, value) in pairs {
                    text(key).write(out);
                    value.write(out);
                }
            }
            Value::List(values) => {
                control(out, 11, values.len());
                values.iter().for_each(|value| value.write(out));
            }
            Value::Pointer(to) => {
                out.push(0b0011_1000);
                out.extend(to.to_be_bytes());
            }
        }
    }
}

/// The one or two bytes before a value; up to 28 + 255 long.
fn control(out: &mut Vec<u8>, kind: u8, size: usize) {
    let (short, rest) = if size < 29 { (size, None) } else { (29, Some(size - 29)) };
    let first = if kind > 7 { 0 } else { kind << 5 };
    out.push(first | u8::try_from(short).unwrap());
    if kind > 7 {
        out.push(kind - 7);
    }
    out.extend(rest.map(|rest| u8::try_from(rest).unwrap()));
}

/// Where one side of a node leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Child {
    Nothing,
    Node(usize),
    /// An offset of the data section.
    Data(usize),
}

/// A file in the making. Every part may be spoilt before it is written.
#[derive(Clone)]
pub struct Mmdb {
    pub ip_version: u16,
    pub record_size: u16,
    pub database_type: String,
    pub build_epoch: u64,
    pub nodes: Vec<[Child; 2]>,
    pub data: Vec<u8>,
    /// Told instead of the real number of nodes.
    pub node_count: Option<u32>,
    /// Where records are in `data` that were written already.
    known: HashMap<Vec<u8>, usize>,
}

impl Mmdb {
    pub fn new(ip_version: u16, record_size: u16) -> Mmdb {
        Mmdb {
            ip_version,
            record_size,
            database_type: "Test-Country".to_owned(),
            build_epoch: 1_790_000_000,
            nodes: vec![[Child::Nothing; 2]],
            data: Vec::new(),
            node_count: None,
            known: HashMap::new(),
        }
    }

    /// A file with these networks, in country codes.
    pub fn of(ip_version: u16, record_size: u16, networks: &[(&str, &str)]) -> Mmdb {
        let mut mmdb = Mmdb::new(ip_version, record_size);
        for (network, code) in networks {
            mmdb.add(network.parse().unwrap(), &record(code));
        }
        mmdb
    }

    /// Adds a record, or finds the one that is the same; gives its offset.
    pub fn datum(&mut self, value: &Value) -> usize {
        let mut bytes = Vec::new();
        value.write(&mut bytes);
        *self.known.entry(bytes).or_insert_with_key(|bytes| {
            self.data.extend(bytes);
            self.data.len() - bytes.len()
        })
    }

    pub fn add(&mut self, network: IpNet, value: &Value) {
        let datum = self.datum(value);
        let (bits, length) = self.path(network);
        self.put(bits, length, Child::Data(datum));
    }

    /// As real files with IPv6 have them: other ways to the tree of IPv4.
    pub fn alias_ipv4(&mut self) {
        let ipv4 = self.child_at(0, 96);
        for alias in ["::ffff:0:0/96", "2001::/32", "2002::/16", "64:ff9b::/96"] {
            let (bits, length) = self.path(alias.parse().unwrap());
            self.put(bits, length, ipv4);
        }
    }

    /// The bits of a network, from the left, and how many.
    fn path(&self, network: IpNet) -> (u128, u8) {
        match (network, self.ip_version) {
            (IpNet::V4(v4), 4) => (u128::from(v4.addr().to_bits()) << 96, v4.prefix_len()),
            (IpNet::V4(v4), _) => (v4.addr().to_bits().into(), 96 + v4.prefix_len()),
            (IpNet::V6(v6), _) => (v6.addr().to_bits(), v6.prefix_len()),
        }
    }

    fn put(&mut self, bits: u128, length: u8, child: Child) {
        let mut node = 0;
        for depth in 0..length {
            let side = side(bits, depth);
            if depth + 1 == length {
                self.nodes[node][side] = child;
                return;
            }
            node = match self.nodes[node][side] {
                Child::Node(next) => next,
                // What was true of the whole is now true of both halves.
                whole => {
                    self.nodes.push([whole; 2]);
                    let new = self.nodes.len() - 1;
                    self.nodes[node][side] = Child::Node(new);
                    new
                }
            };
        }
    }

    fn child_at(&self, bits: u128, length: u8) -> Child {
        (0..length).fold(Child::Node(0), |child, depth| match child {
            Child::Node(node) => self.nodes[node][side(bits, depth)],
            end => end,
        })
    }

    pub fn write(&self) -> Vec<u8> {
        let count = self.nodes.len();
        let number = |child| match child {
            Child::Nothing => count,
            Child::Node(node) => node,
            Child::Data(offset) => count + 16 + offset,
        };
        let mut out = Vec::new();
        for [left, right] in &self.nodes {
            let [left, right] = [number(*left), number(*right)].map(|n| u32::try_from(n).unwrap());
            let [l, r] = [left.to_be_bytes(), right.to_be_bytes()];
            match self.record_size {
                24 => out.extend([l[1], l[2], l[3], r[1], r[2], r[3]]),
                28 => out.extend([l[1], l[2], l[3], l[0] << 4 | r[0], r[1], r[2], r[3]]),
                _ => out.extend([l, r].concat()),
            }
        }
        out.extend([0; 16]);
        out.extend(&self.data);
        out.extend(b"\xab\xcd\xefMaxMind.com");
        map([
            ("binary_format_major_version", Value::Short(2)),
            ("binary_format_minor_version", Value::Short(0)),
            ("build_epoch", Value::Long(self.build_epoch)),
            ("database_type", text(&self.database_type)),
            ("description", map([("en", text("A test"))])),
            ("languages", Value::List(vec![text("en")])),
            ("ip_version", Value::Short(self.ip_version)),
            ("node_count", Value::Number(self.node_count.unwrap_or(count as u32))),
            ("record_size", Value::Short(self.record_size)),
        ])
        .write(&mut out);
        out
    }
}

fn side(bits: u128, depth: u8) -> usize {
    usize::from(Ipv6Addr::from_bits(bits << depth).octets()[0] >= 128)
}
