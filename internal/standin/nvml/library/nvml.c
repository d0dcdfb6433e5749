// A stand-in for libnvidia-ml.so.1: the calls that hostler-nvml makes, answered from small text files that may change at
// any moment. A file is looked at before every call. In the folder $HOSTLER_STANDIN_NVML:
//
//   driver        the machine's driver
//   gpu0 … gpu15  one file for each GPU
//   events        one line for each event: gpu3 8 79
//
// driver and gpuN hold lines of a key and a value; the last line of a key counts, so `echo 'temp.gpu 95' >> gpu3` is a
// change. A key that is absent, or has the value "unsupported", is answered with "not supported".
//
// The structures and numbers are the public interface of NVML, written down anew.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

typedef unsigned int uint;
typedef unsigned long long ull;
typedef int ret_t;

enum {
	OK = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7,
	TIMEOUT = 10, CORRUPTED_INFOROM = 14, GPU_IS_LOST = 15,
};

#define MAX_GPUS 16
#define MAX_TEXT 16384

// A file as it was read last.
struct file {
	char name[16];
	char text[MAX_TEXT];
	struct timespec mtime;
	off_t size;
	ino_t inode;
	int there;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct file driver = { .name = "driver" };
static struct file gpus[MAX_GPUS];
static int initialised;

static const char *folder(void)
{
	const char *f = getenv("HOSTLER_STANDIN_NVML");
	return f ? f : "/run/hostler-standin-nvml";
}

// look reads a file again if it changed.
static void look(struct file *f)
{
	char path[4096];
	struct stat st;
	snprintf(path, sizeof path, "%s/%s", folder(), f->name);
	if (stat(path, &st) != 0) {
		f->there = 0;
		return;
	}
	if (f->there && st.st_ino == f->inode && st.st_size == f->size && st.st_mtim.tv_sec == f->mtime.tv_sec && st.st_mtim.tv_nsec == f->mtime.tv_nsec)
		return;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		f->there = 0;
		return;
	}
	ssize_t n, got = 0;
	while (got < MAX_TEXT - 1 && (n = read(fd, f->text + got, MAX_TEXT - 1 - got)) > 0)
		got += n;
	close(fd);
	f->text[got] = 0;
	f->there = 1;
	f->inode = st.st_ino;
	f->size = st.st_size;
	f->mtime = st.st_mtim;
}

// find copies the value of a key into out: the last one. 0 if there is none, or it is "unsupported".
static int find(struct file *f, const char *key, char *out, size_t size)
{
	size_t k = strlen(key);
	int found = 0;
	if (!f->there)
		return 0;
	for (const char *p = f->text; *p;) {
		const char *end = strchr(p, '\n');
		size_t len = end ? (size_t)(end - p) : strlen(p);
		if (len > k && strncmp(p, key, k) == 0 && (p[k] == ' ' || p[k] == '\t')) {
			size_t v = len - k - 1;
			if (v >= size)
				v = size - 1;
			memcpy(out, p + k + 1, v);
			out[v] = 0;
			found = 1;
		}
		p += len + (end ? 1 : 0);
	}
	return found && strcmp(out, "unsupported") != 0;
}

static int number(struct file *f, const char *key, long long *out)
{
	char text[128];
	if (!find(f, key, text, sizeof text))
		return 0;
	*out = strtoll(text, NULL, 0);
	return 1;
}

static void nap(long ms)
{
	struct timespec t = { ms / 1000, (ms % 1000) * 1000000 };
	while (nanosleep(&t, &t) != 0 && errno == EINTR)
		;
}

// named says whether a list of words has a word, or "all".
static int named(const char *list, const char *word)
{
	size_t n = strlen(word);
	for (const char *p = list; *p;) {
		while (*p == ' ' || *p == ',')
			p++;
		size_t len = strcspn(p, " ,");
		if ((len == n && strncmp(p, word, n) == 0) || (len == 3 && strncmp(p, "all", 3) == 0))
			return 1;
		p += len;
	}
	return 0;
}

// misbehave hangs and dawdles as a file says: "hang all", "hang nvmlDeviceGetPowerUsage", "slow 200". A hang ends when
// the line is changed, as it does in some drivers.
static void misbehave(struct file *f, const char *call)
{
	char list[512];
	long long ms;
	while (find(f, "hang", list, sizeof list) && named(list, call)) {
		pthread_mutex_unlock(&lock);
		nap(20);
		pthread_mutex_lock(&lock);
		look(f);
	}
	if (number(f, "slow", &ms) && ms > 0) {
		pthread_mutex_unlock(&lock);
		nap(ms);
		pthread_mutex_lock(&lock);
	}
}

// enter begins every call; the lock is held until leave.
static ret_t enter(const char *call)
{
	long long code;
	pthread_mutex_lock(&lock);
	look(&driver);
	misbehave(&driver, call);
	if (number(&driver, "fail", &code) && code != 0)
		return (ret_t)code;
	return initialised ? OK : UNINITIALIZED;
}

static ret_t leave(ret_t r)
{
	pthread_mutex_unlock(&lock);
	return r;
}

// enter_gpu begins every call on a GPU. Its handle is the place of its file, plus one.
static ret_t enter_gpu(void *handle, const char *call, struct file **g)
{
	long long v;
	ret_t r = enter(call);
	uintptr_t i = (uintptr_t)handle;
	if (r != OK)
		return r;
	if (i < 1 || i > MAX_GPUS)
		return INVALID_ARGUMENT;
	*g = &gpus[i - 1];
	look(*g);
	if (!(*g)->there)
		return GPU_IS_LOST;
	misbehave(*g, call);
	if (number(*g, "lost", &v) && v)
		return GPU_IS_LOST;
	if (number(*g, "fail", &v) && v)
		return (ret_t)v;
	return OK;
}

// A list of the driver has the files that exist, in their order, without those that say "unlisted 1".
static int listed(int place)
{
	int n = 0;
	for (int i = 0; i < MAX_GPUS; i++) {
		long long v;
		snprintf(gpus[i].name, sizeof gpus[i].name, "gpu%d", i);
		look(&gpus[i]);
		if (!gpus[i].there || (number(&gpus[i], "unlisted", &v) && v))
			continue;
		if (n == place)
			return i;
		n++;
	}
	return place < 0 ? n : -1;
}

// put_number and put_text are the bodies of most calls.
static ret_t put_number(void *d, const char *call, const char *key, long long *out)
{
	struct file *g = NULL;
	ret_t r = enter_gpu(d, call, &g);
	if (r == OK && !number(g, key, out))
		r = NOT_SUPPORTED;
	return leave(r);
}

static ret_t put_text(void *d, const char *call, const char *key, char *out, uint length)
{
	struct file *g = NULL;
	ret_t r = enter_gpu(d, call, &g);
	if (r == OK && !find(g, key, out, length))
		r = NOT_SUPPORTED;
	return leave(r);
}

#define NUMBER(function, type, key)                        \
	ret_t function(void *d, type *out)                 \
	{                                                  \
		long long v = 0;                           \
		ret_t r = put_number(d, #function, key, &v); \
		if (r == OK)                               \
			*out = (type)v;                    \
		return r;                                  \
	}

#define TEXT(function, key)                                             \
	ret_t function(void *d, char *out, uint length)                 \
	{                                                               \
		return put_text(d, #function, key, out, length);        \
	}

// The library.

ret_t nvmlInitWithFlags(uint flags)
{
	(void)flags;
	long long code = 0;
	pthread_mutex_lock(&lock);
	for (int i = 0; i < MAX_GPUS; i++)
		snprintf(gpus[i].name, sizeof gpus[i].name, "gpu%d", i);
	look(&driver);
	misbehave(&driver, __func__);
	if (!driver.there)
		return leave(9); // driver not loaded
	if (number(&driver, "init", &code) && code != 0)
		return leave((ret_t)code);
	initialised++;
	return leave(OK);
}

ret_t nvmlShutdown(void)
{
	ret_t r = enter(__func__);
	if (r == OK)
		initialised--;
	return leave(r);
}

const char *nvmlErrorString(ret_t r)
{
	switch (r) {
	case OK: return "Success";
	case UNINITIALIZED: return "Uninitialized";
	case INVALID_ARGUMENT: return "Invalid Argument";
	case NOT_SUPPORTED: return "Not Supported";
	case NOT_FOUND: return "Not Found";
	case INSUFFICIENT_SIZE: return "Insufficient Size";
	case 9: return "Driver Not Loaded";
	case TIMEOUT: return "Timeout";
	case CORRUPTED_INFOROM: return "Corrupted infoROM";
	case GPU_IS_LOST: return "GPU is lost";
	case 16: return "GPU requires reset";
	case 18: return "Driver/library version mismatch";
	default: return "Unknown Error";
	}
}

static ret_t driver_text(const char *call, const char *key, char *out, uint length)
{
	ret_t r = enter(call);
	if (r == OK && !find(&driver, key, out, length))
		r = NOT_SUPPORTED;
	return leave(r);
}

ret_t nvmlSystemGetDriverVersion(char *out, uint length) { return driver_text(__func__, "version", out, length); }
ret_t nvmlSystemGetNVMLVersion(char *out, uint length) { return driver_text(__func__, "nvml", out, length); }

static ret_t driver_number(const char *call, const char *key, uint *out)
{
	long long v = 0;
	ret_t r = enter(call);
	if (r == OK && !number(&driver, key, &v))
		r = NOT_SUPPORTED;
	if (r == OK)
		*out = (uint)v;
	return leave(r);
}

ret_t nvmlSystemGetCudaDriverVersion_v2(int *out) { return driver_number(__func__, "cuda", (uint *)out); }
ret_t nvmlSystemGetConfComputeGpusReadyState(uint *out) { return driver_number(__func__, "cc.ready", out); }

struct confidential { uint environment, feature, devtools; };

ret_t nvmlSystemGetConfComputeState(struct confidential *out)
{
	uint feature = 0, environment = 0;
	ret_t r = driver_number(__func__, "cc.feature", &feature);
	if (r != OK)
		return r;
	r = driver_number(__func__, "cc.environment", &environment);
	out->environment = environment;
	out->feature = feature;
	out->devtools = 0;
	return r;
}

// Which GPUs there are.

ret_t nvmlDeviceGetCount_v2(uint *out)
{
	ret_t r = enter(__func__);
	if (r == OK)
		*out = (uint)listed(-1);
	return leave(r);
}

ret_t nvmlDeviceGetHandleByIndex_v2(uint index, void **out)
{
	ret_t r = enter(__func__);
	if (r != OK)
		return leave(r);
	int i = listed((int)index);
	if (i < 0)
		return leave(INVALID_ARGUMENT);
	leave(OK);
	struct file *g = NULL;
	*out = (void *)(uintptr_t)(i + 1);
	return leave(enter_gpu(*out, __func__, &g));
}

ret_t nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **out)
{
	char text[64];
	ret_t r = enter(__func__);
	if (r != OK)
		return leave(r);
	int found = -1;
	listed(-1);
	for (int i = 0; i < MAX_GPUS; i++)
		// The domain may have four digits or eight.
		if (find(&gpus[i], "bus", text, sizeof text) && strlen(bus) >= 7 && strlen(text) >= 7 &&
		    strcasecmp(text + strlen(text) - 7, bus + strlen(bus) - 7) == 0 && strtol(text, NULL, 16) == strtol(bus, NULL, 16))
			found = i;
	if (found < 0)
		return leave(NOT_FOUND);
	leave(OK);
	struct file *g = NULL;
	*out = (void *)(uintptr_t)(found + 1);
	return leave(enter_gpu(*out, __func__, &g));
}

struct pci { char legacy[16]; uint domain, bus, device, id, subsystem; char bus_id[32]; };

ret_t nvmlDeviceGetPciInfo_v3(void *d, struct pci *out)
{
	char text[64] = "";
	uint domain = 0, bus = 0, device = 0;
	ret_t r = put_text(d, __func__, "bus", text, sizeof text);
	if (r != OK)
		return r;
	sscanf(text, "%x:%x:%x", &domain, &bus, &device);
	memset(out, 0, sizeof *out);
	out->domain = domain;
	out->bus = bus;
	out->device = device;
	snprintf(out->bus_id, sizeof out->bus_id, "%08X:%02X:%02X.0", domain, bus, device);
	snprintf(out->legacy, sizeof out->legacy, "%04X:%02X:%02X.0", domain & 0xffff, bus & 0xff, device & 0xff);
	return OK;
}

TEXT(nvmlDeviceGetName, "name")
TEXT(nvmlDeviceGetUUID, "uuid")
TEXT(nvmlDeviceGetSerial, "serial")
TEXT(nvmlDeviceGetBoardPartNumber, "part")
TEXT(nvmlDeviceGetVbiosVersion, "vbios")
TEXT(nvmlDeviceGetInforomImageVersion, "inforom.image")
ret_t nvmlDeviceGetGspFirmwareVersion(void *d, char *out) { return put_text(d, __func__, "gsp", out, 64); }
NUMBER(nvmlDeviceGetModuleId, uint, "module")
NUMBER(nvmlDeviceGetInforomConfigurationChecksum, uint, "inforom.checksum")

ret_t nvmlDeviceValidateInforom(void *d)
{
	long long v = 1;
	ret_t r = put_number(d, __func__, "inforom.valid", &v);
	return r == OK && !v ? CORRUPTED_INFOROM : r;
}

struct pdi { uint version; ull value; };

ret_t nvmlDeviceGetPdi(void *d, struct pdi *out)
{
	long long v = 0;
	ret_t r = put_number(d, __func__, "pdi", &v);
	out->value = (ull)v;
	return r;
}

struct platform { uint version; unsigned char guid[16], chassis[16], slot, tray, host, peer, module; };

ret_t nvmlDeviceGetPlatformInfo(void *d, struct platform *out)
{
	struct file *g = NULL;
	long long slot = 0, tray = 0, host = 0;
	ret_t r = enter_gpu(d, __func__, &g);
	if (r == OK && !number(g, "platform.slot", &slot))
		r = NOT_SUPPORTED;
	if (r == OK) {
		number(g, "platform.tray", &tray);
		number(g, "platform.host", &host);
		out->slot = (unsigned char)slot;
		out->tray = (unsigned char)tray;
		out->host = (unsigned char)host;
	}
	return leave(r);
}

// Memory errors.

ret_t nvmlDeviceGetTotalEccErrors(void *d, int kind, int counter, ull *out)
{
	char key[64];
	long long v = 0;
	snprintf(key, sizeof key, "ecc.%s.%s", counter ? "aggregate" : "volatile", kind ? "uncorrected" : "corrected");
	ret_t r = put_number(d, __func__, key, &v);
	*out = (ull)v;
	return r;
}

ret_t nvmlDeviceGetMemoryErrorCounter(void *d, int kind, int counter, int where, ull *out)
{
	char key[64];
	long long v = 0;
	if (where != 2 && where != 7)
		return NOT_SUPPORTED;
	snprintf(key, sizeof key, "ecc.%s.%s.%s", counter ? "aggregate" : "volatile", kind ? "uncorrected" : "corrected", where == 2 ? "dram" : "sram");
	ret_t r = put_number(d, __func__, key, &v);
	*out = (ull)v;
	return r;
}

struct sram { uint version; ull aparity, asecded, acor, vparity, vsecded, vcor, l2, sm, pcie, mcu, other; uint threshold; };

ret_t nvmlDeviceGetSramEccErrorStatus(void *d, struct sram *out)
{
	struct file *g = NULL;
	ret_t r = enter_gpu(d, __func__, &g);
	long long v;
	if (r == OK && !number(g, "sram.threshold", &v))
		r = NOT_SUPPORTED;
	if (r == OK) {
		out->threshold = (uint)v;
		struct { const char *key; ull *into; } rows[] = {
			{ "sram.aggregate.parity", &out->aparity }, { "sram.aggregate.secded", &out->asecded }, { "sram.aggregate.corrected", &out->acor },
			{ "sram.volatile.parity", &out->vparity }, { "sram.volatile.secded", &out->vsecded }, { "sram.volatile.corrected", &out->vcor },
			{ "sram.l2", &out->l2 }, { "sram.sm", &out->sm }, { "sram.pcie", &out->pcie }, { "sram.mcu", &out->mcu }, { "sram.other", &out->other },
		};
		for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
			*rows[i].into = number(g, rows[i].key, &v) ? (ull)v : 0;
	}
	return leave(r);
}

struct sram_unique { uint version, count; void *entries; };

ret_t nvmlDeviceGetSramUniqueUncorrectedEccErrorCounts(void *d, struct sram_unique *out)
{
	long long v = 0;
	ret_t r = put_number(d, __func__, "sram.unique", &v);
	out->count = (uint)v;
	return r == OK && v > 0 && !out->entries ? INSUFFICIENT_SIZE : r;
}

ret_t nvmlDeviceGetRemappedRows(void *d, uint *cor, uint *unc, uint *pending, uint *failure)
{
	struct file *g = NULL;
	long long c, u, p, f;
	ret_t r = enter_gpu(d, __func__, &g);
	if (r == OK && !(number(g, "remap.correctable", &c) && number(g, "remap.uncorrectable", &u) && number(g, "remap.pending", &p) && number(g, "remap.failure", &f)))
		r = NOT_SUPPORTED;
	if (r == OK) {
		*cor = (uint)c;
		*unc = (uint)u;
		*pending = (uint)p;
		*failure = (uint)f;
	}
	return leave(r);
}

ret_t nvmlDeviceGetRowRemapperHistogram(void *d, uint out[5])
{
	static const char *keys[] = { "remap.banks.max", "remap.banks.high", "remap.banks.partial", "remap.banks.low", "remap.banks.none" };
	struct file *g = NULL;
	ret_t r = enter_gpu(d, __func__, &g);
	for (int i = 0; r == OK && i < 5; i++) {
		long long v = 0;
		if (!number(g, keys[i], &v))
			r = NOT_SUPPORTED;
		out[i] = (uint)v;
	}
	return leave(r);
}

NUMBER(nvmlDeviceGetRetiredPagesPendingStatus, int, "retired.pending")

ret_t nvmlDeviceGetRetiredPages(void *d, int cause, uint *count, ull *addresses)
{
	long long v = 0;
	ret_t r = put_number(d, __func__, cause ? "retired.double" : "retired.single", &v);
	if (r != OK)
		return r;
	if (*count < v) {
		return INSUFFICIENT_SIZE;
	}
	for (long long i = 0; i < v; i++)
		addresses[i] = (ull)i << 16;
	*count = (uint)v;
	return OK;
}

struct repair { uint version, channel, tpc; };

ret_t nvmlDeviceGetRepairStatus(void *d, struct repair *out)
{
	struct file *g = NULL;
	long long c, t;
	ret_t r = enter_gpu(d, __func__, &g);
	if (r == OK && !(number(g, "repair.channel", &c) && number(g, "repair.tpc", &t)))
		r = NOT_SUPPORTED;
	if (r == OK) {
		out->channel = (uint)c;
		out->tpc = (uint)t;
	}
	return leave(r);
}

NUMBER(nvmlDeviceGetUnrepairableMemoryFlag_v1, uint, "memory.unrepairable")

// Heat, power, clocks.

ret_t nvmlDeviceGetTemperature(void *d, int sensor, uint *out)
{
	long long v = 0;
	ret_t r = put_number(d, __func__, "temp.gpu", &v);
	(void)sensor;
	*out = (uint)v;
	return r;
}

struct temperature { uint version, sensor; int temperature; };

ret_t nvmlDeviceGetTemperatureV(void *d, struct temperature *out)
{
	long long v = 0;
	ret_t r = put_number(d, __func__, "temp.gpu", &v);
	out->temperature = (int)v;
	return r;
}

struct margin { uint version; int margin; };

ret_t nvmlDeviceGetMarginTemperature(void *d, struct margin *out)
{
	long long v = 0;
	ret_t r = put_number(d, __func__, "temp.margin", &v);
	out->margin = (int)v;
	return r;
}

NUMBER(nvmlDeviceGetCurrentClocksEventReasons, ull, "clocks.reasons")
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, ull, "clocks.reasons")
NUMBER(nvmlDeviceGetPowerUsage, uint, "power.usage")
NUMBER(nvmlDeviceGetEnforcedPowerLimit, uint, "power.limit")
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, uint, "power.default")
NUMBER(nvmlDeviceGetPowerSource, uint, "power.source")

static ret_t clock_of(void *d, const char *call, int kind, const char *end, uint *out)
{
	char key[32];
	long long v = 0;
	if (kind != 1 && kind != 2)
		return NOT_SUPPORTED;
	snprintf(key, sizeof key, "clock.%s%s", kind == 1 ? "sm" : "memory", end);
	ret_t r = put_number(d, call, key, &v);
	*out = (uint)v;
	return r;
}

ret_t nvmlDeviceGetClockInfo(void *d, int kind, uint *out) { return clock_of(d, __func__, kind, "", out); }
ret_t nvmlDeviceGetMaxClockInfo(void *d, int kind, uint *out) { return clock_of(d, __func__, kind, ".max", out); }

struct utilization { uint gpu, memory; };

ret_t nvmlDeviceGetUtilizationRates(void *d, struct utilization *out)
{
	long long v = 0;
	ret_t r = put_number(d, __func__, "busy", &v);
	out->gpu = out->memory = (uint)v;
	return r;
}

// Links.

NUMBER(nvmlDeviceGetCurrPcieLinkGeneration, uint, "pcie.gen")
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, uint, "pcie.width")
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, uint, "pcie.gen.max")
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, uint, "pcie.width.max")
NUMBER(nvmlDeviceGetPcieReplayCounter, uint, "pcie.replay")

// links is how many NVLinks there are; down says whether one is named in "links.down 3,5".
static int down(struct file *g, uint link)
{
	char list[512], word[16];
	snprintf(word, sizeof word, "%u", link);
	return find(g, "links.down", list, sizeof list) && named(list, word);
}

ret_t nvmlDeviceGetNvLinkState(void *d, uint link, int *out)
{
	struct file *g = NULL;
	long long n = 0;
	ret_t r = enter_gpu(d, __func__, &g);
	if (r == OK && !number(g, "links", &n))
		r = NOT_SUPPORTED;
	else if (r == OK && link >= n)
		r = INVALID_ARGUMENT;
	if (r == OK)
		*out = !down(g, link);
	return leave(r);
}

ret_t nvmlDeviceGetNvLinkErrorCounter(void *d, uint link, int counter, ull *out)
{
	static const char *keys[] = { "replay", "recovery", "crc", "crc-data" };
	struct file *g = NULL;
	char key[64];
	long long n = 0, v = 0;
	ret_t r = enter_gpu(d, __func__, &g);
	if (r == OK && (counter < 0 || counter > 3 || !number(g, "links", &n) || link >= n))
		r = NOT_SUPPORTED;
	if (r == OK) {
		snprintf(key, sizeof key, "oldlink.%s", keys[counter]);
		if (!number(g, key, &v) && counter != 3)
			r = NOT_SUPPORTED;
		snprintf(key, sizeof key, "oldlink.%s.%u", keys[counter], link);
		number(g, key, &v);
		*out = (ull)v;
	}
	return leave(r);
}

struct link_info { uint version, encrypted; };

ret_t nvmlDeviceGetNvLinkInfo(void *d, struct link_info *out)
{
	long long v = 0;
	ret_t r = put_number(d, __func__, "nvlink.encrypted", &v);
	out->encrypted = (uint)v;
	return r;
}

struct fabric { uint version; unsigned char uuid[16]; uint status, clique; unsigned char state; uint mask; unsigned char summary; };

ret_t nvmlDeviceGetGpuFabricInfoV(void *d, struct fabric *out)
{
	struct file *g = NULL;
	long long state, v;
	ret_t r = enter_gpu(d, __func__, &g);
	if (r == OK && !number(g, "fabric.state", &state))
		r = NOT_SUPPORTED;
	if (r == OK) {
		out->state = (unsigned char)state;
		out->status = number(g, "fabric.status", &v) ? (uint)v : 0;
		out->mask = number(g, "fabric.mask", &v) ? (uint)v : 0;
		if (out->version >> 24 >= 3)
			out->summary = number(g, "fabric.summary", &v) ? (unsigned char)v : 0;
	}
	return leave(r);
}

static ret_t pair(void *a, void *b, const char *call, const char *key, int *out)
{
	struct file *g = NULL;
	long long v = 0;
	ret_t r = enter_gpu(b, call, &g);
	leave(OK);
	if (r != OK)
		return r;
	r = put_number(a, call, key, &v);
	*out = (int)v;
	return r;
}

ret_t nvmlDeviceGetP2PStatus(void *a, void *b, int what, int *out) { return pair(a, b, __func__, what == 2 ? "p2p.nvlink" : "p2p.read", out); }
ret_t nvmlDeviceGetTopologyCommonAncestor(void *a, void *b, int *out) { return pair(a, b, __func__, "p2p.ancestor", out); }

// How it is set, and who uses it.

NUMBER(nvmlDeviceGetPersistenceMode, int, "mode.persistence")
NUMBER(nvmlDeviceGetComputeMode, int, "mode.compute")

static ret_t two(void *d, const char *call, const char *a, const char *b, uint *x, uint *y)
{
	struct file *g = NULL;
	long long v, w;
	ret_t r = enter_gpu(d, call, &g);
	if (r == OK && !number(g, a, &v))
		r = NOT_SUPPORTED;
	if (r == OK) {
		*x = (uint)v;
		*y = number(g, b, &w) ? (uint)w : (uint)v;
	}
	return leave(r);
}

ret_t nvmlDeviceGetEccMode(void *d, uint *now, uint *pending) { return two(d, __func__, "mode.ecc", "mode.ecc.pending", now, pending); }
ret_t nvmlDeviceGetMigMode(void *d, uint *now, uint *pending) { return two(d, __func__, "mode.mig", "mode.mig.pending", now, pending); }

struct process { uint pid; ull memory; uint gi, ci; };

ret_t nvmlDeviceGetComputeRunningProcesses_v3(void *d, uint *count, struct process *out)
{
	long long v = 0;
	ret_t r = put_number(d, __func__, "processes", &v);
	if (r != OK)
		return r;
	uint room = *count;
	*count = (uint)v;
	if (room < v)
		return INSUFFICIENT_SIZE;
	for (long long i = 0; i < v; i++)
		out[i] = (struct process){ .pid = (uint)(1000 + i), .memory = 1 << 20, .gi = 0xffffffff, .ci = 0xffffffff };
	return OK;
}

struct memory { uint version; ull total, reserved, free, used; };

ret_t nvmlDeviceGetMemoryInfo_v2(void *d, struct memory *out)
{
	struct file *g = NULL;
	long long total, used;
	ret_t r = enter_gpu(d, __func__, &g);
	if (r == OK && !(number(g, "memory.total", &total) && number(g, "memory.used", &used)))
		r = NOT_SUPPORTED;
	if (r == OK) {
		out->total = (ull)total;
		out->used = (ull)used;
		out->free = (ull)(total - used);
		out->reserved = 0;
	}
	return leave(r);
}

struct gpm { uint version, supported; };

ret_t nvmlGpmQueryDeviceSupport(void *d, struct gpm *out)
{
	long long v = 0;
	ret_t r = put_number(d, __func__, "gpm", &v);
	out->supported = (uint)v;
	return r;
}

// Fields: "field.230 1" or, for a link, "field.161.3 7" before "field.161 0".

struct field { uint id, scope; long long timestamp, latency; uint type; ret_t ret; union { double d; uint u; ull l; } value; };

ret_t nvmlDeviceGetFieldValues(void *d, int count, struct field *out)
{
	struct file *g = NULL;
	char key[64];
	ret_t r = enter_gpu(d, __func__, &g);
	for (int i = 0; r == OK && i < count; i++) {
		long long v = 0;
		snprintf(key, sizeof key, "field.%u.%u", out[i].id, out[i].scope);
		int found = number(g, key, &v);
		if (!found) {
			snprintf(key, sizeof key, "field.%u", out[i].id);
			found = number(g, key, &v);
		}
		out[i].ret = found ? OK : NOT_SUPPORTED;
		out[i].type = v < 0 ? 4 : 3;
		out[i].value.l = (ull)v;
	}
	return leave(r);
}

// Events: a set begins at the end of the file, and gets the lines that are added.

struct set { off_t at; ull wanted[MAX_GPUS]; };
struct event { void *device; ull type, data; uint gi, ci; };

static void events_path(char *path, size_t size) { snprintf(path, size, "%s/events", folder()); }

ret_t nvmlEventSetCreate(struct set **out)
{
	char path[4096];
	struct stat st;
	ret_t r = enter(__func__);
	if (r == OK) {
		events_path(path, sizeof path);
		*out = calloc(1, sizeof **out);
		(*out)->at = stat(path, &st) == 0 ? st.st_size : 0;
	}
	return leave(r);
}

ret_t nvmlEventSetFree(struct set *s)
{
	free(s);
	return OK;
}

NUMBER(nvmlDeviceGetSupportedEventTypes, ull, "events")

ret_t nvmlDeviceRegisterEvents(void *d, ull types, struct set *s)
{
	struct file *g = NULL;
	long long supported = 0;
	ret_t r = enter_gpu(d, __func__, &g);
	if (r == OK && (!number(g, "events", &supported) || (types & ~(ull)supported)))
		r = NOT_SUPPORTED;
	if (r == OK)
		s->wanted[(uintptr_t)d - 1] |= types;
	return leave(r);
}

// take gives the next line that somebody wanted; 0 if there is none yet.
static int take(struct set *s, struct event *out)
{
	char path[4096], line[256];
	events_path(path, sizeof path);
	FILE *f = fopen(path, "re");
	int found = 0;
	if (!f)
		return 0;
	fseeko(f, s->at, SEEK_SET);
	while (!found && fgets(line, sizeof line, f) && strchr(line, '\n')) {
		uint gpu = 0, gi = 0xffffffff, ci = 0xffffffff;
		ull type = 0, data = 0;
		s->at = ftello(f);
		if (sscanf(line, "gpu%u %llx %llu %u %u", &gpu, &type, &data, &gi, &ci) < 2 || gpu >= MAX_GPUS || !(s->wanted[gpu] & type))
			continue;
		*out = (struct event){ (void *)(uintptr_t)(gpu + 1), type, data, gi, ci };
		found = 1;
	}
	fclose(f);
	return found;
}

ret_t nvmlEventSetWait_v2(struct set *s, struct event *out, uint timeout)
{
	for (uint waited = 0;; waited += 20) {
		ret_t r = enter(__func__);
		int found = r == OK && take(s, out);
		leave(OK);
		if (r != OK || found)
			return r;
		if (waited >= timeout)
			return TIMEOUT;
		nap(20);
	}
}
