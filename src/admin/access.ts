export type Role = 'read' | 'write'
