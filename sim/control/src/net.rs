//! The network: connections that keep their order until they are cut, and links between places that are cut.
//!
//! A connection has two ends, each in a process. What is under way when one end closes still arrives, then the
//! other end learns that it is over. Across a cut link nothing arrives until it heals, or until an end gives up.

use std::collections::{BTreeMap, VecDeque};

use rackferry_fleet::{Hello, Order, Said};

use crate::clock::{MS, SECOND};
use crate::world::{Happening, World};

/// A place: coordinators first, then hosts.
pub type Place = usize;
/// Number of a connection.
pub type ConnId = u64;

/// What a connection carries.
#[derive(Clone, Debug)]
pub enum Frame {
    /// An agent introduces itself to a coordinator.
    Hello(Box<Hello>),
    /// The coordinator leads and takes the stream.
    Taken,
    /// It does not lead; perhaps this one does.
    NotLeader(Option<usize>),
    /// An agent's word.
    Said(Box<Said>),
    /// A coordinator's order.
    Order(Box<Order>),
    /// A source session calls its target: migration and generation.
    Call(u64, u64),
    /// It was expected.
    Accepted,
    /// All pages and the device state, of this version of the memory.
    Everything(u64),
    /// The target has loaded.
    Loaded,
    /// The source is in postmigrate.
    Go,
    /// The target runs.
    Running,
    /// The other side gave up.
    Abort,
    /// Nothing follows.
    Fin,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Agent to coordinator.
    Stream,
    /// Source to target.
    Pipe(u64),
}

#[derive(Debug, Default)]
struct Line {
    frames: VecDeque<(u64, Frame)>,
    /// Its first frame has a moment at which it arrives.
    moving: bool,
    last: u64,
}

/// A connection.
#[derive(Debug)]
pub struct Conn {
    /// The place that dialled, and the one that was dialled.
    pub ends: [Place; 2],
    /// Which ends are open.
    pub open: [bool; 2],
    /// What it is for.
    pub purpose: Purpose,
    /// What travels to each end.
    lines: [Line; 2],
}

/// All of it.
#[derive(Debug, Default)]
pub struct Net {
    /// Connections with an open end.
    pub conns: BTreeMap<ConnId, Conn>,
    last: ConnId,
    /// Cut links, each with the number of its cut; by places in order.
    pub cuts: BTreeMap<(Place, Place), u64>,
    cut_count: u64,
    /// Links that are slow at the moment.
    pub slow: BTreeMap<(Place, Place), u64>,
}

impl Net {
    /// Can anything pass between two places?
    pub fn is_cut(&self, a: Place, b: Place) -> bool {
        self.cuts.contains_key(&pair(a, b))
    }

    /// Frames that travel to an end of a connection.
    pub fn under_way(&self, id: ConnId, to: usize) -> usize {
        self.conns.get(&id).map_or(0, |conn| conn.lines[to].frames.len())
    }
}

/// Two places in order.
pub fn pair(a: Place, b: Place) -> (Place, Place) {
    (a.min(b), a.max(b))
}

impl World {
    /// How long a message takes between two places, this time.
    pub fn delay(&mut self, a: Place, b: Place) -> u64 {
        let usual = self.dice.between(MS / 10, self.plan.delay_ns);
        let slow = self.net.slow.get(&pair(a, b)).copied().unwrap_or(0);
        usual + self.dice.below(slow + 1)
    }

    /// Opens a connection; its first frame tells the other end.
    pub fn dial(&mut self, from: Place, to: Place, purpose: Purpose, first: Frame) -> ConnId {
        self.net.last += 1;
        let id = self.net.last;
        let lines = Default::default();
        self.net.conns.insert(id, Conn { ends: [from, to], open: [true, true], purpose, lines });
        self.send(id, 0, first);
        if self.net.is_cut(from, to) {
            self.watch_silence(id);
        }
        id
    }

    /// Sends a frame from one end of a connection, if that is open.
    pub fn send(&mut self, id: ConnId, end: usize, frame: Frame) {
        let Some([a, b]) = self.net.conns.get(&id).filter(|conn| conn.open[end]).map(|c| c.ends)
        else {
            return;
        };
        let at = self.clock.now + self.delay(a, b);
        self.put(id, 1 - end, at, frame);
    }

    fn put(&mut self, id: ConnId, to: usize, at: u64, frame: Frame) {
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        let line = &mut conn.lines[to];
        line.last = line.last.max(at);
        line.frames.push_back((line.last, frame));
        self.set_moving(id, to);
    }

    /// Lets the first frame of a line arrive.
    fn set_moving(&mut self, id: ConnId, to: usize) {
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        let [a, b] = conn.ends;
        let line = &mut conn.lines[to];
        let Some((at, _)) = line.frames.front() else { return };
        if line.moving || self.net.cuts.contains_key(&pair(a, b)) {
            return;
        }
        line.moving = true;
        let pause = at.saturating_sub(self.clock.now);
        self.clock.after(pause, Happening::Deliver(id, to));
    }

    /// The first frame of a line arrives.
    pub fn deliver(&mut self, id: ConnId, to: usize) {
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        conn.lines[to].moving = false;
        let ([a, b], open) = (conn.ends, conn.open[to]);
        if self.net.cuts.contains_key(&pair(a, b)) {
            return;
        }
        let Some((_, frame)) = conn.lines[to].frames.pop_front() else { return };
        self.set_moving(id, to);
        if open {
            match frame {
                Frame::Fin => self.lose_end(id, to),
                frame => self.arrived(id, to, frame),
            }
        }
    }

    /// One end is closed by its process; the other learns of it after what is under way.
    pub fn close(&mut self, id: ConnId, end: usize) {
        let Some(conn) = self.net.conns.get_mut(&id) else { return };
        if !std::mem::replace(&mut conn.open[end], false) {
            return;
        }
        if conn.open[1 - end] {
            let [a, b] = conn.ends;
            let at = self.clock.now + self.delay(a, b);
            self.put(id, 1 - end, at, Frame::Fin);
        } else {
            self.net.conns.remove(&id);
        }
    }

    /// An end learns that its connection is over without its doing.
    fn lose_end(&mut self, id: ConnId, end: usize) {
        let Some(conn) = self.net.conns.get(&id) else { return };
        let (place, purpose) = (conn.ends[end], conn.purpose);
        self.close(id, end);
        match purpose {
            Purpose::Stream => self.stream_ended(id, place),
            Purpose::Pipe(migration) => self.pipe_ended(id, migration, place),
        }
    }

    /// Everything that travels on a connection after a random point is lost, and both ends learn of it.
    pub fn cut_conn(&mut self, id: ConnId) {
        for to in 0..2 {
            let Some(conn) = self.net.conns.get(&id) else { return };
            let keep = conn.lines[to].frames.len() as u64;
            let keep = self.dice.between(0, keep) as usize;
            let late = self.clock.now + self.dice.below(3 * SECOND);
            if let Some(conn) = self.net.conns.get_mut(&id) {
                conn.lines[to].frames.truncate(keep);
            }
            self.put(id, to, late, Frame::Fin);
        }
    }

    /// Cuts the link between two places for a while.
    pub fn cut_link(&mut self, a: Place, b: Place, pause: u64) {
        self.net.cut_count += 1;
        let count = self.net.cut_count;
        self.net.cuts.insert(pair(a, b), count);
        self.clock.after(pause, Happening::LinkHeals(pair(a, b), count));
        let across: Vec<ConnId> = self.conns_between(a, b);
        for id in across {
            self.watch_silence(id);
        }
    }

    /// A cut link heals, unless it was cut again.
    pub fn heal_link(&mut self, link: (Place, Place), count: u64) {
        if self.net.cuts.get(&link) != Some(&count) {
            return;
        }
        self.net.cuts.remove(&link);
        self.trace.say(self.clock.now, || format!("link {link:?} heals"));
        for id in self.conns_between(link.0, link.1) {
            self.set_moving(id, 0);
            self.set_moving(id, 1);
        }
    }

    fn conns_between(&self, a: Place, b: Place) -> Vec<ConnId> {
        let of = |conn: &Conn| pair(conn.ends[0], conn.ends[1]) == pair(a, b);
        self.net.conns.iter().filter(|(_, conn)| of(conn)).map(|(&id, _)| id).collect()
    }

    /// Each end gives up after a while if the link stays cut.
    fn watch_silence(&mut self, id: ConnId) {
        let Some(conn) = self.net.conns.get(&id) else { return };
        let Some(&count) = self.net.cuts.get(&pair(conn.ends[0], conn.ends[1])) else { return };
        let longest = if conn.purpose == Purpose::Stream { 7 } else { 20 };
        for end in 0..2 {
            let pause = self.dice.between(2, longest) * SECOND;
            self.clock.after(pause, Happening::Silent(id, end, count));
        }
    }

    /// An end has heard nothing for so long that it gives up.
    pub fn give_up(&mut self, id: ConnId, end: usize, count: u64) {
        let Some(conn) = self.net.conns.get(&id).filter(|conn| conn.open[end]) else { return };
        if self.net.cuts.get(&pair(conn.ends[0], conn.ends[1])) == Some(&count) {
            self.lose_end(id, end);
        }
    }

    /// The process at a place is gone: its ends of connections close.
    pub fn close_all(&mut self, place: Place) {
        let mine: Vec<(ConnId, usize)> = self
            .net
            .conns
            .iter()
            .flat_map(|(&id, conn)| [(id, 0, conn.ends[0]), (id, 1, conn.ends[1])])
            .filter(|(_, _, at)| *at == place)
            .map(|(id, end, _)| (id, end))
            .collect();
        for (id, end) in mine {
            self.close(id, end);
        }
    }
}
