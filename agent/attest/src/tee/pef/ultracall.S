/*
 * int64_t sealpod_uv_esmb_get_file(uint64_t offset, uint64_t words[8], uint64_t *answered)
 *
 * UV_ESMB_GET_FILE (0xF14C): r3 = number, r4 = offset, r5..r12 = the file's name.
 * Back: r3 = length or error, r4..r11 = data. ELFv2 ABI, little-endian.
 *
 * Where there is no ultravisor, `sc 2` from user space is an ordinary system call: its number is in r0, which
 * is therefore one that no kernel knows, and the kernel says so by setting SO in cr0. An ultravisor leaves cr0
 * alone.
 */
	.file	"ultracall.S"
	.abiversion 2
	.section .text
	.align	4
	.globl	sealpod_uv_esmb_get_file
	.type	sealpod_uv_esmb_get_file, @function
sealpod_uv_esmb_get_file:
	/* r30 and r31 are the caller's: into the protected zone below the stack pointer goes nothing that a
	   signal could overwrite, so a frame of 64 bytes. */
	stdu	1, -64(1)
	std	30, 48(1)
	std	31, 56(1)
	mr	30, 4
	mr	31, 5
	mr	4, 3
	ld	5, 0(30)
	ld	6, 8(30)
	ld	7, 16(30)
	ld	8, 24(30)
	ld	9, 32(30)
	ld	10, 40(30)
	ld	11, 48(30)
	ld	12, 56(30)
	lis	3, 0
	ori	3, 3, 0xF14C
	lis	0, 0
	ori	0, 0, 0xF14C
	crclr	3		/* SO of cr0 */
	sc	2
	std	4, 0(30)
	std	5, 8(30)
	std	6, 16(30)
	std	7, 24(30)
	std	8, 32(30)
	std	9, 40(30)
	std	10, 48(30)
	std	11, 56(30)
	li	4, 0
	bso	0, 1f
	li	4, 1
1:	std	4, 0(31)
	/* What the call may leave behind of the file. */
	li	5, 0
	li	6, 0
	li	7, 0
	li	8, 0
	li	9, 0
	li	10, 0
	li	11, 0
	ld	30, 48(1)
	ld	31, 56(1)
	addi	1, 1, 64
	blr
	.size	sealpod_uv_esmb_get_file, .-sealpod_uv_esmb_get_file
	.section .note.GNU-stack,"",@progbits
