/* culver.conf: any text gives settings or complaints; settings that are good
 * print as a text that reads back the same. */
#include <stddef.h>
#include <stdint.h>

#include "base/mem.h"
#include "daemon/conf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = mem_strndup((const char *)data, size);
	struct buf complaints = BUF_INIT(0), one = BUF_INIT(0), two = BUF_INIT(0);
	struct conf a, b;
	int rc = conf_parse(text, &a, &complaints);

	if ((rc < 0) != (complaints.len > 0))
		abort();
	if (rc == 0) {
		settings_print(conf_table, &a, false, &one);
		if (conf_parse(buf_str(&one), &b, &complaints) < 0)
			abort();
		settings_print(conf_table, &b, false, &two);
		if (strcmp(buf_str(&one), buf_str(&two)))
			abort();
		conf_free(&b);
	}
	conf_free(&a);
	buf_free(&complaints);
	buf_free(&one);
	buf_free(&two);
	free(text);
	return 0;
}
