//! One connection to a scripted upstream: reads what comes, gives the answers of the script.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use super::answer::{Answer, Manner};
use super::upstream::{Received, State};

/// How much of a body is kept; of the rest only the length.
const KEPT: usize = 1 << 20;
/// How often a waiting answer looks whether anybody still waits for it.
const GLANCE: Duration = Duration::from_millis(5);

/// Serves its requests one after the other, as an HTTP/1.1 server does that means no harm.
pub(super) struct Connection {
    reader: BufReader<TcpStream>,
    number: usize,
    state: Arc<State>,
}

impl Connection {
    pub(super) fn new(stream: TcpStream, number: usize, state: Arc<State>) -> Self {
        Connection { reader: BufReader::new(stream), number, state }
    }

    /// # Errors
    /// The gateway left.
    pub(super) fn serve(&mut self) -> io::Result<()> {
        self.reader.get_ref().set_nodelay(true)?;
        while let Some(request) = self.read_head()? {
            if self.state.is_check(&request) {
                self.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
                continue;
            }
            let (index, answer) = self.state.note(request.clone());
            if matches!(answer.manner, Manner::Early) {
                self.write(&whole(&answer, &request.method))?;
            }
            let read = self.read_body(index, &request);
            let done = read.and_then(|()| self.answer(&answer, &request.method));
            if done.is_err() {
                self.state.update(index, |r| r.cancelled = true);
            }
            if !done? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// `None` where the connection ends instead of a request.
    fn read_head(&mut self) -> io::Result<Option<Received>> {
        self.reader.get_ref().set_read_timeout(None)?;
        let line = self.read_line()?;
        let mut words = line.splitn(3, ' ').map(str::to_owned);
        let (Some(method), Some(target), Some(version)) =
            (words.next(), words.next(), words.next())
        else {
            return Ok(None);
        };
        let mut request =
            Received { connection: self.number, method, target, version, ..Received::default() };
        loop {
            let line = self.read_line()?;
            if line.is_empty() {
                return Ok(Some(request));
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            request.headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        let line = String::from_utf8_lossy(&line);
        Ok(line.strip_suffix("\r\n").unwrap_or(&line).to_owned())
    }

    fn read_body(&mut self, index: usize, request: &Received) -> io::Result<()> {
        let chunked = request.all("transfer-encoding").iter().any(|v| v.contains("chunked"));
        if chunked {
            while let size @ 1.. = self.read_chunk_size()? {
                self.read_part(index, size)?;
                self.read_line()?;
            }
            while !self.read_line()?.is_empty() {}
        } else {
            let length = request.all("content-length").first().and_then(|v| v.parse().ok());
            self.read_part(index, length.unwrap_or(0))?;
        }
        self.state.update(index, |r| r.complete = true);
        Ok(())
    }

    fn read_chunk_size(&mut self) -> io::Result<u64> {
        let line = self.read_line()?;
        let digits = line.split(';').next().unwrap_or_default();
        u64::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData.into())
    }

    fn read_part(&mut self, index: usize, mut left: u64) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        while left > 0 {
            let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let read = self.reader.read(&mut buffer[..want])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            left -= read as u64;
            self.state.update(index, |r| {
                r.body_length += read as u64;
                let room = KEPT.saturating_sub(r.body.len()).min(read);
                r.body.extend_from_slice(&buffer[..room]);
            });
        }
        Ok(())
    }

    /// Whether the connection may serve another request; an error if the gateway left.
    fn answer(&mut self, answer: &Answer, method: &str) -> io::Result<bool> {
        self.watch(answer.delay)?;
        if answer.held {
            self.wait_for_release()?;
        }
        let head = answer.head(answer.body.len());
        match answer.manner {
            Manner::Early => {}
            Manner::Proper => self.write(&whole(answer, method))?,
            Manner::Hang => self.watch(Duration::MAX)?,
            Manner::Reset => {
                // Takes effect with the last handle to the connection.
                socket2::SockRef::from(self.reader.get_ref()).set_linger(Some(Duration::ZERO))?;
                return Ok(false);
            }
            Manner::Close => return self.close(),
            Manner::Verbatim => {
                self.write(&answer.body)?;
                return self.close();
            }
            Manner::Truncate { .. } => {
                self.write(&[&head[..], &answer.body].concat())?;
                return self.close();
            }
            Manner::DripHead(every) => {
                self.drip(&head, every)?;
                self.write(&answer.body)?;
            }
            Manner::DripBody(every) => {
                self.write(&head)?;
                self.drip(&answer.body, every)?;
            }
            Manner::HoldBody => {
                let (first, rest) = answer.body.split_at(1);
                self.write(&[&head[..], first].concat())?;
                self.wait_for_release()?;
                self.write(rest)?;
            }
            Manner::HoldChunks => {
                let (first, rest) = answer.body.split_at(1);
                self.write(&[&head[..], &chunk(first)].concat())?;
                self.wait_for_release()?;
                self.write(&[&chunk(rest)[..], b"0\r\n\r\n"].concat())?;
            }
            Manner::Chunked(size) => {
                self.write(&head)?;
                for part in answer.body.chunks(size) {
                    self.write(&chunk(part))?;
                }
                self.write(b"0\r\n\r\n")?;
            }
            Manner::Stream(bytes) => {
                self.write(&head)?;
                self.stream(bytes)?;
            }
        }
        Ok(true)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    fn drip(&mut self, bytes: &[u8], every: Duration) -> io::Result<()> {
        for byte in bytes {
            self.write(&[*byte])?;
            self.watch(every)?;
        }
        Ok(())
    }

    fn stream(&mut self, mut left: u64) -> io::Result<()> {
        let block = vec![b'x'; 64 * 1024];
        while left > 0 {
            let part = block.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            self.write(&block[..part])?;
            left -= part as u64;
        }
        Ok(())
    }

    /// An orderly end: what was written arrives.
    fn close(&mut self) -> io::Result<bool> {
        let _ = self.reader.get_ref().shutdown(Shutdown::Both);
        Ok(false)
    }

    fn wait_for_release(&mut self) -> io::Result<()> {
        while !self.state.is_released() {
            self.watch(GLANCE)?;
        }
        Ok(())
    }

    /// Let time pass; an error as soon as the gateway closes the connection.
    fn watch(&mut self, time: Duration) -> io::Result<()> {
        if time.is_zero() {
            return Ok(());
        }
        let stream = self.reader.get_ref();
        // A read that times out is the pause, one that returns is the news.
        stream.set_read_timeout((time < Duration::from_secs(3600)).then_some(time))?;
        match stream.peek(&mut [0]) {
            Ok(0) => Err(io::ErrorKind::ConnectionAborted.into()),
            Ok(_) => Ok(()),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Ok(())
            }
            Err(e) => Err(e),
        }
    }
}

fn chunk(part: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat()
}

/// Head and body as one; only the head where the method wants no more.
fn whole(answer: &Answer, method: &str) -> Vec<u8> {
    let head = answer.head(answer.body.len());
    let bodiless = method == "HEAD" || answer.status == 204 || answer.status == 304;
    if bodiless { head } else { [head, answer.body.clone()].concat() }
}
