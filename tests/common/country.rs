//! A country database in a directory of its own, and the command that works there.

use std::fs;
use std::path::PathBuf;

use pam_prefixquota::country::{Country, country_of};

use super::Run;
use super::mmdb::Mmdb;
use super::store::source;

pub const NETWORKS: [(&str, &str); 9] = [
    ("192.0.2.0/25", "DE"),
    ("192.0.2.128/25", "DE"),
    ("198.51.100.0/24", "FR"),
    ("198.51.101.0/24", "AT"),
    ("2001:db8::/32", "DE"),
    ("2001:db9::/33", "FR"),
    ("3fff::/20", "US"),
    ("2a00::/128", "CH"),
    ("2a00::1/128", "CH"),
];

/// A directory with settings and perhaps a country database.
pub struct Lab {
    pub dir: tempfile::TempDir,
}

impl Lab {
    pub fn new() -> Lab {
        let lab = Lab { dir: super::private_dir() };
        let settings = format!("country_database = {}\n", lab.database().display());
        fs::write(lab.path("settings"), settings).unwrap();
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn database(&self) -> PathBuf {
        self.path("country.db")
    }

    /// Exit status, standard output and standard error.
    pub fn run(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = super::command();
        Run::of(command.arg("--config").arg(self.path("settings")).args(arguments)).parts()
    }

    pub fn import(&self, bytes: &[u8]) -> (i32, String, String) {
        fs::write(self.path("in.mmdb"), bytes).unwrap();
        self.run(&["country", "import", self.path("in.mmdb").to_str().unwrap()])
    }

    pub fn imported(mmdb: &Mmdb) -> Lab {
        let lab = Lab::new();
        let (status, _, error) = lab.import(&mmdb.write());
        assert_eq!((status, error.as_str()), (0, ""));
        lab
    }

    /// The country of an address, as the module finds it.
    pub fn of(&self, address: &str) -> String {
        let found = country_of(&self.database(), &source(address)).unwrap();
        found.map_or("none".to_owned(), |country| country.to_string())
    }

    pub fn sql(&self, question: &str) -> i64 {
        let conn = rusqlite::Connection::open(self.database()).unwrap();
        conn.query_row(question, [], |row| row.get(0)).unwrap()
    }
}

pub fn known(code: &str) -> Country {
    Country::parse(code).unwrap()
}
