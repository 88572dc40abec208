//! Puts files into a ZIP archive without pressing them: sound does not get smaller, and a reader needs no more.

use super::picture::crc32;

/// 1980-01-01, the first day that the format knows.
const DATE: u16 = 0x21;
/// What a reader must understand: nothing special.
const VERSION: u16 = 10;

/// An archive of these files by their names, which are plain ASCII. Together they must stay below 4 GiB.
pub(super) fn zip(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let (mut archive, mut directory) = (Vec::new(), Vec::new());
    for (name, file) in files {
        let about = about(name, file);
        let place = archive.len() as u32;
        archive.extend_from_slice(b"PK\x03\x04");
        archive.extend_from_slice(&about);
        archive.extend_from_slice(name.as_bytes());
        archive.extend_from_slice(file);
        directory.extend_from_slice(b"PK\x01\x02");
        directory.extend_from_slice(&VERSION.to_le_bytes());
        directory.extend_from_slice(&about);
        // Comment, disk, and attributes: none.
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&place.to_le_bytes());
        directory.extend_from_slice(name.as_bytes());
    }
    let (count, place) = (files.len() as u16, archive.len() as u32);
    archive.extend_from_slice(&directory);
    archive.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    archive.extend_from_slice(&count.to_le_bytes());
    archive.extend_from_slice(&count.to_le_bytes());
    archive.extend_from_slice(&(directory.len() as u32).to_le_bytes());
    archive.extend_from_slice(&place.to_le_bytes());
    archive.extend_from_slice(&[0; 2]);
    archive
}

/// What stands before a file and once more in the directory.
fn about(name: &str, file: &[u8]) -> Vec<u8> {
    let mut about = Vec::with_capacity(26);
    // Version, no flags, stored, midnight.
    for number in [VERSION, 0, 0, 0, DATE] {
        about.extend_from_slice(&number.to_le_bytes());
    }
    let length = file.len() as u32;
    for number in [crc32(file), length, length] {
        about.extend_from_slice(&number.to_le_bytes());
    }
    about.extend_from_slice(&(name.len() as u16).to_le_bytes());
    about.extend_from_slice(&[0; 2]);
    about
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_laid_out_as_the_format_says() {
        let archive = zip(&[("a.wav", b"123456789".to_vec()), ("bc.wav", b"x".to_vec())]);
        let number = |at: usize| u32::from_le_bytes(archive[at..at + 4].try_into().unwrap());
        let end = archive.len() - 22;
        assert_eq!(&archive[end..end + 4], b"PK\x05\x06");
        let (length, directory) = (number(end + 12) as usize, number(end + 16) as usize);
        assert_eq!(directory + length, end);
        assert_eq!(&archive[directory..directory + 4], b"PK\x01\x02");
        let second = directory + 46 + "a.wav".len();
        assert_eq!(&archive[second..second + 4], b"PK\x01\x02");
        let place = number(second + 42) as usize;
        assert_eq!(&archive[place..place + 4], b"PK\x03\x04");
        assert_eq!(&archive[place + 30..directory], b"bc.wavx");
        assert_eq!(number(14), 0xcbf4_3926);
    }
}
