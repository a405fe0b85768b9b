package delivery

// Store is what the parts of the engine need of the database, all of it.
type Store interface {
	// Accepting.
	ResolveStore
	AcceptStore

	// Attempts.
	TargetStore
	ContentStore
	CredentialStore
	BeginStore
	FinishStore
	DoubtStore
	WaitStore

	// Loops.
	ClaimStore
	LeaseStore
	ScheduledStore
	HoldStore
	ProbeStore
	VerifyStore
	RetentionStore
	CleanupStore
	SizeStore
	BacklogStore
	PauseStore
	DutyStore

	// Commands.
	CommandStore
	EndpointDeletionStore
	BringForwardStore
	JobStore
	ReplayStore
	DeviceRestoreStore
	ErasureStore
	KeyRingStore

	// Tenants, and other nodes.
	SnapshotStore
	HintStore
	PeerStore
	HealthStore
}
