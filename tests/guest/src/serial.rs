//! The serial line: the guest's only way to the outside.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

/// A handle to the serial line; clones write whole lines to the same line.
#[derive(Clone)]
pub struct Serial(Arc<Mutex<File>>);

impl Serial {
    /// Opens the first serial port and takes the terminal's habits away from it.
    pub fn open() -> io::Result<Self> {
        let file = open_port()?;
        let mut attributes = tcgetattr(&file)?;
        attributes.make_raw();
        tcsetattr(&file, OptionalActions::Now, &attributes)?;
        Ok(Self(Arc::new(Mutex::new(file))))
    }

    /// Writes one line.
    pub fn line(&self, text: &str) {
        self.bytes(format!("{text}\n").as_bytes());
    }

    /// Writes bytes, together. Errors are dropped: there is no other place to tell them.
    pub fn bytes(&self, bytes: &[u8]) {
        let mut file = self.0.lock().expect("no thread panics while it holds the serial line");
        file.write_all(bytes).ok();
    }
}

/// The port for reading what the outside sends.
pub fn open_port() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/ttyS0")
}
