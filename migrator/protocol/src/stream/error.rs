//! Why a stream cannot be carried.

/// The stream cannot be carried, and where that was seen. The source QEMU goes on running when its
/// connection is closed, so each of these ends one attempt to move a VM and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// A well-formed stream that uses something Rackferry does not carry.
    #[error("cannot carry this migration: {refusal} (stream offset {offset})")]
    Refused {
        /// What it uses, and what to do about it.
        refusal: Refusal,
        /// Bytes from the start of this channel's stream.
        offset: u64,
    },
    /// Bytes that no QEMU of a supported version writes.
    #[error("broken migration stream: {malformed} (stream offset {offset})")]
    Malformed {
        /// What is wrong with them.
        malformed: Malformed,
        /// Bytes from the start of this channel's stream.
        offset: u64,
    },
}

impl StreamError {
    pub(crate) fn at(problem: Problem, offset: u64) -> Self {
        match problem {
            Problem::Refused(refusal) => Self::Refused { refusal, offset },
            Problem::Malformed(malformed) => Self::Malformed { malformed, offset },
        }
    }
}

/// A [`StreamError`] that has not been told its place yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    Refused(Refusal),
    Malformed(Malformed),
}

/// A feature in use at the source that cannot be carried, with the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Postcopy was started.
    #[error("postcopy was started (command {command}); do not call migrate-start-postcopy")]
    Postcopy {
        /// Number of the command that showed it.
        command: u16,
    },
    /// A broken postcopy migration is being recovered.
    #[error("this is the recovery of a postcopy migration; start a new migration")]
    PostcopyRecovery,
    /// COLO was switched on.
    #[error("COLO is on; switch the capability x-colo off")]
    Colo,
    /// Pages are sent as differences to what the destination has.
    #[error("XBZRLE pages; switch the capability xbzrle off at the source")]
    Xbzrle,
    /// Pages are sent compressed by the source.
    #[error("pages compressed by QEMU; switch the capability compress off at the source")]
    Compress,
    /// The stream was made for RDMA.
    #[error("RDMA hooks; migrate to a unix: address, not to rdma:")]
    RdmaHook,
    /// Shared memory is left out by the source.
    #[error("shared memory is left out; switch the capability x-ignore-shared off at both sides")]
    IgnoreShared,
    /// The stream was made for a seekable file.
    #[error("file layout of memory; switch the capability mapped-ram off at the source")]
    MappedRam,
    /// QEMU's own disk migration.
    #[error("disks migrate in the stream; switch the capability block off, mirror disks over NBD")]
    BlockMigration,
    /// A section that exists only on architectures that are not supported.
    #[error("section {0:?} belongs to an unsupported architecture")]
    Architecture(Box<str>),
    /// Target pages that are not 4 KiB.
    #[error("target pages of 2^{0} bytes; only 4 KiB pages are supported")]
    PageSize(u32),
    /// Machine types before 2.4 leave out what the stream is checked by.
    #[error("no configuration section (machine type before 2.4); use a newer machine type")]
    NoConfiguration,
    /// Machine types before 2.4 leave out what the stream is checked by.
    #[error("no section footers (machine type before 2.4); use a newer machine type")]
    NoFooter,
    /// Another version of the memory section than 4.
    #[error("memory section of version {0}; only version 4 is known")]
    RamVersion(u32),
    /// More than a limit of this program allows.
    #[error("too many {what}: the limit is {limit}")]
    TooMany {
        /// Of what there are too many.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// Multifd with compressed packets.
    #[error("multifd compression (method {0}); set multifd-compression to none at the source")]
    MultifdCompression(u32),
    /// Device state on multifd channels.
    #[error(
        "VFIO device state on multifd channels; set x-migration-multifd-transfer=off on the \
         vfio-pci devices or switch the capability multifd off"
    )]
    MultifdDeviceState,
}

/// What is wrong with bytes that no supported QEMU writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// Not a migration stream.
    #[error("magic {0:#010x}")]
    Magic(u32),
    /// A migration stream of another format.
    #[error("format version {0}")]
    Version(u32),
    /// A byte that begins no section.
    #[error("section type {0:#04x}")]
    SectionType(u8),
    /// A section continues that was never started.
    #[error("section {0} was never started")]
    UnknownSection(u32),
    /// A section is started twice.
    #[error("section {0} is started twice")]
    DuplicateSection(u32),
    /// The footer of a section names another one.
    #[error("the footer of section {expected} says {found}")]
    Footer {
        /// The section that ends here.
        expected: u32,
        /// The section the footer names.
        found: u32,
    },
    /// A name that is empty, or no UTF-8.
    #[error("a name is empty or not UTF-8")]
    Name,
    /// A memory record with flags that do not go together.
    #[error("memory record flags {0:#x}")]
    RamFlags(u64),
    /// A memory section without its block list, or with two.
    #[error("the block list is missing or comes twice")]
    BlockList,
    /// A block length that is not made of pages, or does not fit the announced total.
    #[error("block length {0:#x}")]
    BlockLength(u64),
    /// A page size that is no power of two above the target page.
    #[error("block page size {0:#x}")]
    BlockPageSize(u64),
    /// Two blocks with one name.
    #[error("two blocks have one name")]
    DuplicateBlock,
    /// A page of a block that was not listed.
    #[error("page of a block that is not in the list")]
    UnknownBlock,
    /// "Same block as before" without a before.
    #[error("a page continues a block before any block was named")]
    NoBlockToContinue,
    /// A page outside its block.
    #[error("page at {offset:#x} of block {block} lies outside it")]
    PageOutsideBlock {
        /// Index of the block.
        block: u16,
        /// Byte offset claimed.
        offset: u64,
    },
    /// A page filled with a byte that is not zero.
    #[error("fill byte {0:#04x}")]
    Fill(u8),
    /// A length that cannot be.
    #[error("{what} of {len} bytes")]
    Length {
        /// The thing that has the length.
        what: &'static str,
        /// The length.
        len: u64,
    },
    /// Unknown mark in a VFIO section.
    #[error("VFIO mark {0:#x}")]
    VfioMark(u64),
    /// Memory that cannot be divided into its blocks.
    #[error("virtio-mem of {size:#x} bytes in blocks of {block:#x}")]
    VirtioMem {
        /// Bytes of the device's region.
        size: u64,
        /// Bytes of its blocks.
        block: u64,
    },
    /// The stream ends before guest memory does.
    #[error("end of stream before the end of guest memory")]
    EarlyEnd,
    /// A multifd packet with more pages than fit.
    #[error("packet with {normal} + {zero} pages")]
    PacketPages {
        /// Pages with payload.
        normal: u32,
        /// Pages without.
        zero: u32,
    },
    /// Flags of a multifd packet that do not exist.
    #[error("packet flags {0:#x}")]
    PacketFlags(u32),
}

impl From<Malformed> for Problem {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}
