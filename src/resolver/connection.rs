//! A client's TCP connection: questions and answers, each behind its length in two bytes (RFC 1035, 4.2.2; RFC 7766). One
//! question of a connection is under way at a time, so that nobody fills our memory by not reading.

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::message::MAX_QUERY;

/// A connection on which nothing is asked is closed.
const IDLE: Duration = Duration::from_secs(10);

pub struct Connection {
    stream: TcpStream,
    pub asker: IpAddr,
    input: Vec<u8>,
    output: Vec<u8>,
    sent: usize,
    /// A question was handed out, and its answer is not here.
    asked: bool,
    pub deadline: Instant,
}

/// The connection is of no more use.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed;

impl Connection {
    /// `stream` does not block.
    pub fn new(stream: TcpStream, asker: IpAddr, now: Instant) -> Self {
        let (input, output) = (Vec::new(), Vec::new());
        Self { stream, asker, input, output, sent: 0, asked: false, deadline: now + IDLE }
    }

    /// While an answer is under way nothing is read.
    pub fn interest(&self) -> (BorrowedFd<'_>, PollFlags) {
        let flags = match (self.sent < self.output.len(), self.asked) {
            (true, _) => PollFlags::OUT,
            (false, true) => PollFlags::empty(),
            (false, false) => PollFlags::IN,
        };
        (self.stream.as_fd(), flags)
    }

    /// Moves what can be moved; gives the next question once it is whole.
    pub fn turn(&mut self, now: Instant) -> Result<Option<Vec<u8>>, Closed> {
        if self.sent < self.output.len() {
            self.write(now)?;
        }
        if self.asked || self.sent < self.output.len() {
            return Ok(None);
        }
        if let Some(question) = self.take_question()? {
            return Ok(Some(question));
        }
        let mut buffer = [0; 2 + MAX_QUERY];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(Closed),
            Ok(length) => {
                self.input.extend(&buffer[..length]);
                self.take_question()
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(_) => Err(Closed),
        }
    }

    fn take_question(&mut self) -> Result<Option<Vec<u8>>, Closed> {
        let Some(length) = self.input.first_chunk().map(|length| usize::from(u16::from_be_bytes(*length))) else {
            return Ok(None);
        };
        if length > MAX_QUERY {
            return Err(Closed);
        }
        if self.input.len() < 2 + length {
            return Ok(None);
        }
        let question = self.input[2..2 + length].to_vec();
        self.input.drain(..2 + length);
        self.asked = true;
        Ok(Some(question))
    }

    /// Takes the answer to the question that was handed out; `None`: there will be none.
    pub fn answer(&mut self, answer: Option<&[u8]>, now: Instant) -> Result<(), Closed> {
        self.asked = false;
        let Some(answer) = answer else { return Err(Closed) };
        let length = u16::try_from(answer.len()).map_err(|_| Closed)?;
        self.output = [&length.to_be_bytes()[..], answer].concat();
        self.sent = 0;
        self.deadline = now + IDLE;
        self.write(now)
    }

    fn write(&mut self, now: Instant) -> Result<(), Closed> {
        match self.stream.write(&self.output[self.sent..]) {
            Ok(length) => {
                self.sent += length;
                self.deadline = now + IDLE;
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(_) => Err(Closed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Connection, TcpStream) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, peer) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        (Connection::new(stream, peer.ip(), Instant::now()), client)
    }

    fn next(connection: &mut Connection) -> Result<Option<Vec<u8>>, Closed> {
        for _ in 0..2000 {
            match connection.turn(Instant::now()) {
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                other => return other,
            }
        }
        Ok(None)
    }

    #[test]
    fn questions_come_one_after_the_other_in_whatever_pieces() {
        let (mut connection, mut client) = pair();
        client.write_all(&[0]).unwrap();
        assert_eq!(connection.turn(Instant::now()), Ok(None));
        client.write_all(&[2, 7, 8, 0, 1, 9]).unwrap();
        assert_eq!(next(&mut connection), Ok(Some(vec![7, 8])));
        assert_eq!(connection.turn(Instant::now()), Ok(None), "the first has no answer yet");
        connection.answer(Some(&[1, 2, 3]), Instant::now()).unwrap();
        assert_eq!(next(&mut connection), Ok(Some(vec![9])));
        let mut answer = [0; 5];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [0, 3, 1, 2, 3]);
        drop(client);
        connection.answer(Some(&[4]), Instant::now()).unwrap();
        assert_eq!(next(&mut connection), Err(Closed));
    }

    #[test]
    fn a_question_that_is_too_long_closes_the_connection() {
        let (mut connection, mut client) = pair();
        client.write_all(&(MAX_QUERY as u16 + 1).to_be_bytes()).unwrap();
        assert_eq!(next(&mut connection), Err(Closed));
    }
}
