//! What bounds the work on a damaged store gets in the way of no sound one.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::store::{Lab, START, login, stranger};
use pam_prefixquota::decide::Verdict;
use pam_prefixquota::guard::Admission;
use pam_prefixquota::quota::Multiple;
use rusqlite::Connection;

/// They are written in the first attempt after the settings have changed, many rows for each.
#[test]
fn many_multiples_can_be_written() {
    let multiple = |site: u32| Multiple {
        prefix: format!("2001:db8:{site:x}::/48").parse().unwrap(),
        times: 10,
    };
    let lab = Lab::new(|settings| settings.multiply = (1..=200).map(multiple).collect());
    assert!(matches!(lab.admit("2001:db8::1"), Admission::Passed(_)));
}

/// A great many looks at a /32 with a great many addresses, and one connection for them all.
#[test]
fn who_waits_long_is_refused_and_not_let_in_uncounted() {
    let lab = Lab::new(|settings| settings.settle = 60_000);
    drop(lab.store());
    let open = format!(
        "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 2000)
         INSERT INTO failure (address, source, level, slow, at, since, open_since, open, widest)
         SELECT CAST(x'20010db8' || CAST(printf('%012d', x) AS BLOB) AS BLOB), x, 0.35, 0.35,
                {START}, {START}, {START}, 100, 32 FROM n"
    );
    Connection::open(&lab.settings.database).unwrap().execute_batch(&open).unwrap();
    let waits = stranger("2001:db8:ffff::1");
    assert!(matches!(lab.look(&waits), Verdict::Wait(_)));
    assert!(matches!(lab.admit_login(&waits), Admission::Refused(_)));
    assert!(matches!(lab.look(&login("", "2001:dc8::1")), Verdict::Admit(..)));
}
